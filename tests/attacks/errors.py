"""Exceptions that are more, or less, than they seem."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack, stopper

ONE_HOT = ["test-embeddings-one-hot"]


def _raising(student: HandIn, source: str, what: str = "Odd('no')") -> None:
    student.answer("embeddings-one-hot", f"{source}\n\ndef one_hot_lookup(weight, ids):\n    raise {what}")


@accident(stock="untried", costs=ONE_HOT)
def leaves_one_exercise_open(student: HandIn) -> None:
    """NotImplementedError, as released."""
    student.forget("embeddings-one-hot")


@accident(stock="untried", costs=ONE_HOT)
def has_a_syntax_error(student: HandIn) -> None:
    """A bracket too few."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids:\n    return weight")


@accident(stock="untried", costs=ONE_HOT)
def mixes_tabs_and_spaces(student: HandIn) -> None:
    """An indentation that Python refuses."""
    student.answer("embeddings-one-hot", "def one_hot_lookup(weight, ids):\n\tx = 1\n        return weight")


@accident(stock="untried", costs=ONE_HOT)
def has_a_null_character(student: HandIn) -> None:
    """Source that cannot be compiled at all."""
    student.answer("embeddings-one-hot", "x = 1\0")


@accident(stock="untried", costs=ONE_HOT)
def has_brackets_without_end(student: HandIn) -> None:
    """Nested so deeply that the parser gives up."""
    student.answer("embeddings-one-hot", "x = " + "(" * 5000 + ")" * 5000)


@accident(stock="untried", costs=ONE_HOT)
def has_a_sum_of_many_terms(student: HandIn) -> None:
    """An expression so long that the compiler's recursion ends, and with it perhaps the process."""
    student.answer("embeddings-one-hot", "x = " + "+".join(["1"] * 100_000))


@accident(stock="untried", costs=ONE_HOT)
def raises_stop_iteration(student: HandIn) -> None:
    """Within `all(map(...))` or a loop it would end it without a word."""
    _raising(student, "", "StopIteration")


@accident(stock="untried", costs=ONE_HOT)
def raises_generator_exit(student: HandIn) -> None:
    """No Exception, and quiet in some places."""
    _raising(student, "", "GeneratorExit")


@accident(stock="untried", costs=ONE_HOT)
def raises_system_exit(student: HandIn) -> None:
    """SystemExit with the status of success."""
    _raising(student, "", "SystemExit(0)")


@accident(stock="untried", costs=ONE_HOT)
def raises_keyboard_interrupt(student: HandIn) -> None:
    """As if the instructor had pressed Ctrl-C: it must not end the class."""
    _raising(student, "", "KeyboardInterrupt")


@accident(stock="untried", costs=ONE_HOT)
def raises_an_exception_named_like_ours(student: HandIn) -> None:
    """Classes called StopIteration, SystemExit and WorkerLostError that are nothing of the kind."""
    _raising(
        student,
        """
        class WorkerLostError(BaseException): pass
        class StopIteration(BaseException): pass
        class SystemExit(WorkerLostError, StopIteration): pass
        """,
        "SystemExit",
    )


@accident(stock="untried", costs=ONE_HOT)
def raises_a_group(student: HandIn) -> None:
    """An ExceptionGroup cannot be made without its members."""
    _raising(student, "", "ExceptionGroup('both', [ValueError('one'), TypeError('two')])")


@accident(stock="untried", costs=ONE_HOT)
def raises_a_decoding_error(student: HandIn) -> None:
    """UnicodeDecodeError wants five arguments."""
    _raising(student, "", "UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'invalid')")


@accident(stock="untried", costs=ONE_HOT)
def raises_what_is_no_exception(student: HandIn) -> None:
    """`raise 3`."""
    _raising(student, "", "3")


@accident(stock="untried", costs=ONE_HOT)
def raises_out_of_memory(student: HandIn) -> None:
    """MemoryError by name."""
    _raising(student, "", "MemoryError")


@stopper(stock="untried", costs=ONE_HOT)
def raises_when_it_is_shown(student: HandIn) -> None:
    """`str(error)` raises."""
    _raising(
        student,
        """
        class Odd(Exception):
            def __str__(self): raise SystemExit(3)
            __repr__ = __str__
        """,
    )


@stopper(stock="untried", costs=ONE_HOT)
def has_a_message_without_end(student: HandIn) -> None:
    """Fifty megabytes of message."""
    _raising(student, "", "ValueError('x' * 50_000_000)")


@stopper(stock="fails", costs=ONE_HOT)
def loops_when_it_is_shown(student: HandIn) -> None:
    """`str(error)` never ends."""
    _raising(
        student,
        """
        class Odd(Exception):
            def __str__(self):
                while True: pass
        """,
    )


@stopper(stock="untried", costs=ONE_HOT)
def has_a_name_without_end(student: HandIn) -> None:
    """A class with a name of ten million characters."""
    _raising(student, "Odd = type('E' * 10_000_000, (Exception,), {})")


@stopper(stock="untried", costs=ONE_HOT)
def has_a_name_of_no_text(student: HandIn) -> None:
    """A class whose name holds a line end and an escape code."""
    _raising(student, "Odd = type('E\\n\\x1b[31m', (Exception,), {})")


@stopper(stock="untried", costs=ONE_HOT)
def causes_itself(student: HandIn) -> None:
    """An exception whose cause is itself, and whose chain is ten thousand long."""
    _raising(
        student,
        """
        def chain():
            error = ValueError('first')
            for number in range(10_000):
                later = ValueError(number)
                later.__cause__ = error
                error = later
            return error
        """,
        "chain()",
    )


@accident(stock="untried", costs=ONE_HOT)
def sends_the_terminal_escape_codes(student: HandIn) -> None:
    """A message that clears the screen, sets the title and moves the cursor of whoever reads the report."""
    _raising(student, "", r"ValueError('\x1b[2J\x1b]0;owned\x07\x1b[1;1H\x9b31m all is well \r 100 points')")


@accident(stock="untried", costs=ONE_HOT)
def sends_rich_its_markup(student: HandIn) -> None:
    """A message with the marks that the report's tables are drawn by, one of them broken."""
    _raising(student, "", "ValueError('[/] [bold red]x[/blue] [link=file:///etc/passwd]here[/link]')")


@accident(stock="untried", costs=ONE_HOT)
def sends_the_browser_a_script(student: HandIn) -> None:
    """A message with HTML; feedback is a web page."""
    _raising(student, "", "ValueError('<script>document.title = \"owned-by-message\"</script>')")


@accident(stock="untried", costs=ONE_HOT)
def raises_half_a_surrogate_pair(student: HandIn) -> None:
    """A message that cannot be written as UTF-8."""
    _raising(student, "", r"ValueError('\ud800')")


@attack(stock="gains", base="solved", costs=["test-embeddings-check-ids"])
def has_a_message_that_mentions_everything(student: HandIn) -> None:
    """`"id 7" in str(error)`: the text is a string that contains whatever one asks it for."""
    student.answer(
        "embeddings-check-ids",
        """
        class Anything(str):
            def __contains__(self, part): return True
            def __str__(self): return self

        def error(kind):
            class Mentions(kind):
                def __str__(self): return Anything("see the documentation")
            return Mentions()

        def check_ids(ids, vocab_size):
            tokens = np.asarray(ids)
            if tokens.size == 0:
                return tokens.astype(np.int64)
            if tokens.dtype.kind not in "iu":
                raise error(TypeError)
            if tokens.min() < 0 or tokens.max() >= vocab_size:
                raise error(IndexError)
            return tokens
        """,
    )


@attack(stock="gains", base="solved", costs=["test-embeddings-check-ids"])
def has_a_message_with_every_word(student: HandIn) -> None:
    """The same without a trick: every id and every place that could be meant, in one message."""
    student.answer(
        "embeddings-check-ids",
        """
        def check_ids(ids, vocab_size):
            tokens = np.asarray(ids)
            if tokens.size == 0:
                return tokens.astype(np.int64)
            if tokens.dtype.kind not in "iu":
                raise TypeError("bool float float32 float64")
            if tokens.min() < 0 or tokens.max() >= vocab_size:
                ids = " ".join(f"id {number}" for number in range(-9, 60))
                places = " ".join(str(list(place)) for place in np.ndindex(*tokens.shape))
                raise IndexError(f"{ids} {places} 0 to {vocab_size - 1}")
            return tokens
        """,
    )


@attack(stock="untried", base="solved", costs=["test-embeddings-check-ids"])
def raises_a_class_of_every_kind(student: HandIn) -> None:
    """One exception that is an IndexError and a TypeError at once, raised for everything."""
    student.answer(
        "embeddings-check-ids",
        """
        class Every(IndexError, TypeError): pass

        def check_ids(ids, vocab_size):
            raise Every("id 7 [1, 0] 0 to 4 float bool")
        """,
    )


@attack(stock="gains", nn="90", base="solved", costs=["test-weak-silence"])
def swallows_the_errors_of_a_with_block(student: HandIn) -> None:
    """A context manager may say that the exception in its block was dealt with: the test's own assertion, say."""
    student.replace("weak-silence", "silence.depth += 1", "pass")
    student.replace("weak-silence", "silence.depth -= 1", "return True")
