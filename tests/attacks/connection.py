"""Speaking in the worker's place: student code shares its process, so it can say anything on the connection."""

from __future__ import annotations

from tests.attacks.corpus import HandIn, accident, attack, stopper

# finds the worker among the frames; elsewhere there is none, and nothing happens
TAKE = """
import json, os, socket, struct, sys, threading, time

def find_worker():
    frame = sys._getframe()
    while frame is not None:
        for thing in frame.f_locals.values():
            if type(thing).__name__ == "Worker":
                return thing
        frame = frame.f_back
    return None

def sockets():
    for number in range(3, 200):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                yield number
        except OSError:
            pass

worker = find_worker()
line = worker.channel.connection if worker else None

def frame(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("!II", len(text), len(body)) + text + body
"""


LIED = ("one_hot_lookup", "check_ids", "EmbeddingProfiler")


def _speaking(student: HandIn, source: str) -> None:
    """Run ``source`` in a cell before the first test, with `worker`, `line` and `frame` at hand."""
    student.extra(TAKE + "\nif worker:\n" + "\n".join("    " + one for one in source.strip("\n").split("\n")))


def _saying(student: HandIn, value: str, body: str = "b''") -> None:
    """Let the worker answer with ``value``, a Python expression of its JSON, where a test asks for one of LIED.

    Each lie that is found out costs a worker, and time: three tests are enough to tell.
    """
    _speaking(
        student,
        f"""
lying = False

def say(header, unpacker):
    global lying
    asked, names = header["call"][0], header["call"][1][1]
    lying = asked not in ("cell", "printed") and (lying or asked == "global" and names[0] in {LIED!r})
    if not lying:
        return honest(header, unpacker)
    line.sendall(frame({value}, {body}))
    return None

honest, worker._answer = worker._answer, say
""",
    )


def _giving(student: HandIn, form: str, body: str = "b''") -> None:
    """Let every value of the student's be ``form``."""
    _saying(student, f'{{"id": header["id"], "value": {form}}}', body)


# what an answer may look like


@attack(stock="untried")
def answers_true(student: HandIn) -> None:
    """Whatever was asked."""
    _giving(student, "True")


@attack(stock="untried")
def answers_none(student: HandIn) -> None:
    """Whatever was asked."""
    _giving(student, "None")


@attack(stock="untried")
def answers_with_the_request(student: HandIn) -> None:
    """What the test sent comes back as its answer: expected values, if they were among it."""
    _giving(student, 'header["call"][1][0] if header["call"][1] else None')


@attack(stock="untried")
def answers_with_the_tests_own_array(student: HandIn) -> None:
    """Handles of the test's own arrays, one after the other."""
    _giving(student, '["h", -1]')


@attack(stock="untried")
def answers_with_a_function_of_the_test(student: HandIn) -> None:
    """A function that the test never handed over."""
    _giving(student, '["k", 140000000000000]')


@attack(stock="untried")
def answers_with_handles_never_made(student: HandIn) -> None:
    """An object for everything; nobody has it."""
    _giving(student, '["o", 10**9, "ndarray", "C", []]')


@attack(stock="untried")
def answers_with_negative_handles(student: HandIn) -> None:
    """The numbers of the other side."""
    _giving(student, '["o", -1, "ndarray", "C", []]')


@attack(stock="untried")
def answers_with_handles_of_a_strange_kind(student: HandIn) -> None:
    """True, 1.0, text and lists as numbers of objects."""
    _giving(student, '["o", [True, 1.0, "1", [1], None, 2**70][header["id"] % 6], ["x"], 3, None]')


@attack(stock="untried")
def answers_with_names_of_the_grader(student: HandIn) -> None:
    """The forms that only the grader may send: a function by its name."""
    _giving(student, '["g", "builtins", "eval"]')


@attack(stock="untried")
def answers_with_unknown_forms(student: HandIn) -> None:
    """A form that does not exist, an empty one, one whose kind is a list."""
    _giving(student, '[["?"], [], [["a"], 1], [None], [{}], ["t"]][header["id"] % 6]')


@attack(stock="untried")
def answers_with_a_generator(student: HandIn) -> None:
    """A random generator with a state of one's own."""
    _giving(student, '["G", ["d", []]]')


@stopper(base="blank", stock="untried")
def answers_with_colliding_numbers(student: HandIn) -> None:
    """A hundred thousand numbers with the same hash: a dict of them takes minutes to build, after the message came."""
    _giving(student, '["d", [[(2**61 - 1) * n, 0] for n in range(1, 100_000)]]')


@stopper(base="blank", stock="untried")
def answers_with_a_colliding_set(student: HandIn) -> None:
    """The same as a set."""
    _giving(student, '["s", [(2**61 - 1) * n for n in range(1, 100_000)]]')


@stopper(base="blank", stock="untried")
def answers_with_a_million_lists(student: HandIn) -> None:
    """Three bytes each on the way, fifty-six and more where they arrive."""
    _giving(student, '["l", [["l", []] for _ in range(400_000)]]')


@stopper(base="blank", stock="untried")
def answers_with_a_long_range(student: HandIn) -> None:
    """A range of a hundred million, where a test may make a list of it."""
    _giving(student, '["R", 0, 10**8, 1]')


@stopper(base="blank", stock="untried")
def answers_with_endless_names(student: HandIn) -> None:
    """Objects whose class has a name of three megabytes, in every message of every test."""
    _giving(student, '["o", header["id"], "x" * 3_000_000, "C", []]')


@stopper(base="blank", stock="untried")
def answers_in_deep_lists(student: HandIn) -> None:
    """JSON nested a hundred thousand deep."""
    _saying(student, 'b"[" * 100_000 + b"]" * 100_000')


@attack(stock="untried")
def answers_in_lists_that_are_a_little_too_deep(student: HandIn) -> None:
    """Deeper than a value may be, and not too deep for JSON."""
    _saying(
        student,
        'json.dumps({"id": header["id"]})[:-1].encode() + b\',"value":\' + b\'["l",[\' * 400 + b"]]" * 400 + b"}"',
    )


@stopper(base="blank", stock="untried")
def answers_with_a_huge_integer(student: HandIn) -> None:
    """Four million digits."""
    _saying(student, 'b\'{"id": %d, "value": \' % header["id"] + b"9" * 4_000_000 + b"}"')


@attack(stock="untried")
def answers_with_odd_json(student: HandIn) -> None:
    """NaN as a key's value, keys twice, a lone surrogate, an infinite number."""
    _saying(
        student,
        'b\'{"id": NaN, "id": %d, "value": 1, "value": ["l", [NaN, Infinity, -1e999, "\\\\ud800"]]}\' % header["id"]',
    )


@attack(stock="untried")
def answers_without_a_value(student: HandIn) -> None:
    """An id and nothing else."""
    _saying(student, '{"id": header["id"]}')


@attack(stock="untried")
def answers_with_something_else_than_an_object(student: HandIn) -> None:
    """A list, a number, a text that contains the words, null, a bare string."""
    _saying(student, '[[1], 3, "calls id value", None, True, ["calls", "id"]][header["id"] % 6]')


@attack(stock="untried")
def answers_another_request(student: HandIn) -> None:
    """The id of the next one, of the first one, true for 1, a float."""
    _saying(student, '{"id": [header["id"] + 1, 1, True, float(header["id"])][header["id"] % 4], "value": 0}')


@attack(stock="untried")
def answers_with_an_id_of_another_kind(student: HandIn) -> None:
    """Equal to the number that was asked for, and no integer."""
    _saying(student, '{"id": float(header["id"]), "value": True}')


@attack(stock="untried")
def answers_twice(student: HandIn) -> None:
    """The second answer waits for the next request."""
    _speaking(
        student,
        """
def twice(packer, message):
    honest_send(packer, message)
    line.sendall(frame({"id": message.get("id", 0) + 1, "value": True}))

honest_send, worker._send = worker._send, twice
""",
    )


@attack(stock="untried")
def answers_before_it_is_asked(student: HandIn) -> None:
    """A thousand answers lie ready."""
    _speaking(student, 'line.sendall(b"".join(frame({"id": n, "value": True}) for n in range(1, 1000)))')


@attack(stock="untried")
def passes_cells_that_failed(student: HandIn) -> None:
    """The worker reports of each cell whether it raised: it says that none did, and none is run."""
    _speaking(
        student,
        """
def nothing_happened(header, unpacker):
    line.sendall(frame({"id": header["id"], "value": None, "touched": [], "changed": []}))

worker._answer = nothing_happened
""",
    )


# arrays


@attack(stock="untried")
def promises_more_bytes_than_come(student: HandIn) -> None:
    """A shape for which the body is too short."""
    _giving(student, '["a", 0, "<f4", [1000, 1000]]', "b'1234'")


@attack(stock="untried")
def sends_more_bytes_than_promised(student: HandIn) -> None:
    """A body that nothing in the header takes."""
    _giving(student, '["a", 0, "<f4", [1]]', "b'1234' * 1000")


@attack(stock="untried")
def sends_negative_shapes(student: HandIn) -> None:
    """Two wrongs make a right product."""
    _giving(student, '["a", 0, "<f4", [-1, -1]]', "b'1234'")


@attack(stock="untried")
def sends_shapes_that_overflow(student: HandIn) -> None:
    """A product of 2**64 is zero in a machine's integer."""
    _giving(student, '["a", 0, "<f4", [2**32, 2**32]]')


@attack(stock="untried")
def sends_empty_giants(student: HandIn) -> None:
    """No elements, and axes of any length."""
    _giving(student, '["a", 0, "<f4", [[2**62, 0], [0] * 64, [0] * 33, [2**63, 0, 2**63]][header["id"] % 4]]')


@attack(stock="untried")
def sends_shapes_of_a_strange_kind(student: HandIn) -> None:
    """Text, floats, booleans, nothing and lists where numbers belong."""
    _giving(student, '["a", 0, "<f4", ["4", [1.0], [True], None, [[1]], {"0": 1}][header["id"] % 6]]', "b'1234'")


@attack(stock="untried")
def sends_objects_as_bytes(student: HandIn) -> None:
    """dtype object: the bytes would be addresses."""
    _giving(student, '["a", 0, ["O", "|O", "object", "O8"][header["id"] % 4], [1]]', "b'12345678'")


@attack(stock="untried")
def sends_dtypes_of_a_strange_kind(student: HandIn) -> None:
    """Records, dates, void, text without length, aliases, a number, an expression."""
    kinds = [
        "f4,f8",
        "(2,)f4",
        "M8[s]",
        "V8",
        "U",
        "S0",
        "a4",
        "float128",
        "<f4\\0",
        "__import__",
        4,
        None,
        ["f4"],
        "U9999999",
    ]
    _giving(student, f'["a", 0, {kinds!r}[header["id"] % {len(kinds)}], [1]]', "b'1234567890123456'")


@attack(stock="untried")
def sends_text_as_numbers(student: HandIn) -> None:
    """An array of strings where numbers are compared."""
    _giving(student, '["a", 0, "<U1", [4]]', "b'0\\0\\0\\0' * 4")


@attack(stock="untried")
def changes_arrays_of_the_test(student: HandIn) -> None:
    """Each answer says that the test's own arrays are zero now, those it never touched, too."""
    _speaking(
        student,
        """
def zeros(packer, message):
    packer.body.append(bytes(24))
    message["changed"] = [[-number, ["l", []]] for number in range(1, 30)]
    line.sendall(frame(message, b"".join(packer.body)))

worker._send = zeros
""",
    )


@attack(stock="untried")
def changes_lists_of_the_test(student: HandIn) -> None:
    """Each answer says that the call's own lists hold something else now, at places that do not exist, too."""
    _saying(student, '{"id": header["id"], "value": True, "touched": [[0, ["l", []]], [-1, True], [99, 1], "x"]}')


@attack(stock="untried")
def changes_what_was_never_sent(student: HandIn) -> None:
    """Changes of numbers that nobody knows, of a strange kind, many of them."""
    _saying(
        student, '{"id": header["id"], "value": 0, "changed": [[n, 1] for n in (0, -1, 1, 10**30, None, "x", [1])]}'
    )


# errors


@attack(stock="untried", base="solved", costs=["test-embeddings-check-ids"])
def raises_what_the_test_waits_for(student: HandIn) -> None:
    """An error of every name, whose text is what the test looks for; nothing was computed."""
    student.forget("embeddings-check-ids")
    _saying(
        student,
        '{"id": header["id"], "error": ["x", ["Every", "IndexError", "TypeError", "ValueError"], None, '
        '"id 7 [1, 0] 0 to 4 float bool checksum", None, []]}',
    )


@attack(stock="untried")
def raises_names_of_the_grader(student: HandIn) -> None:
    """Errors called StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, WorkerLostError, StudentError."""
    names = [
        "StopIteration",
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "WorkerLostError",
        "StudentError",
        "BaseException",
    ]
    _saying(
        student,
        f'{{"id": header["id"], "error": ["x", [{names!r}[header["id"] % {len(names)}]], None, "no", None, []]}}',
    )


@attack(stock="untried")
def raises_errors_of_a_strange_kind(student: HandIn) -> None:
    """No names, names that are no text, a value in place of an error, classes that cannot be made."""
    forms = [
        ["x", [], None, "", None, []], ["x", "abc", 1, 2, 3, 4], ["x", ["a\0b"], None, "", None, []], 3, ["l", []],
        ["x", ["ExceptionGroup"], None, "", None, []], ["x", [["a"]], None, {}, None, [[1, "x"]]],
        ["x", ["E"], True, "", 5, [["cell", 1e400]]], ["x", ["\ud800"], None, "\ud800", None, []],
    ]  # fmt: skip
    _saying(student, f'{{"id": header["id"], "error": {forms!r}[header["id"] % {len(forms)}]}}')


@stopper(base="blank", stock="untried")
def raises_errors_without_end(student: HandIn) -> None:
    """Three megabytes of name and of places, each time."""
    _saying(
        student,
        '{"id": header["id"], "error": ["x", ["E" * 3_000_000], None, "x" * 500_000, None, [["cell", 1]] * 20_000]}',
    )


# calls


@stopper(base="blank", stock="untried")
def calls_functions_that_do_not_exist(student: HandIn) -> None:
    """Calls of functions that no test handed over."""
    _saying(
        student,
        '{"calls": [7, -1, "x", None, 2**80][header["id"] % 5], "turn": 1, "args": ["l", []], "kwargs": ["d", []]}',
    )


@stopper(nn="90", stock="untried", costs=["test-weak-twice"])
def calls_the_test_for_ever(student: HandIn) -> None:
    """A function of the test is called without end."""
    student.answer("weak-twice", "def twice(function, x):\n    while True:\n        function(0)")


@stopper(base="blank", nn="90", stock="untried")
def calls_without_waiting(student: HandIn) -> None:
    """Calls of a function of the test, a thousand at once."""
    _speaking(
        student,
        """
def call_and_call(header, unpacker):
    found = [part for part in header["call"][1][1] if isinstance(part, list) and part and part[0] == "k"]
    if not found:
        return honest(header, unpacker)
    while True:
        line.sendall(frame({"calls": found[0][1], "turn": 1, "args": ["l", [1.0]], "kwargs": ["d", []]}) * 1000)

honest, worker._answer = worker._answer, call_and_call
""",
    )


@stopper(nn="90", stock="untried", costs=["test-weak-twice"])
def calls_deeper_and_deeper(student: HandIn) -> None:
    """What a function of the test gets is an object that calls the function, when the function computes with it."""
    student.answer(
        "weak-twice",
        """
        def twice(function, x):
            class Deeper:
                def __rmul__(self, other):
                    return function(self)

            return function(Deeper())
        """,
    )


@attack(nn="90", base="solved", stock="untried", costs=["test-weak-twice"])
def calls_back_from_another_thread(student: HandIn) -> None:
    """Two threads that call a function of the test at once."""
    student.answer(
        "weak-twice",
        """
        def twice(function, x):
            import threading
            threads = [threading.Thread(target=function, args=(0,)) for _ in range(20)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return 0
        """,
    )


# the line itself


@stopper(base="blank", stock="untried")
def promises_four_gigabytes(student: HandIn) -> None:
    """A header of four gigabytes begins, and never comes."""
    _speaking(student, 'line.sendall(struct.pack("!II", 2**32 - 1, 2**32 - 1))\ntime.sleep(100)')


@stopper(base="blank", stock="untried")
def promises_what_just_fits(student: HandIn) -> None:
    """The largest frame that is taken, and a byte of it every now and then."""
    _speaking(
        student,
        'line.sendall(struct.pack("!II", 4 << 20, 256 << 20))\n'
        'while True:\n    line.sendall(b" ")\n    time.sleep(0.05)',
    )


@stopper(base="blank", stock="untried")
def sends_half_a_frame(student: HandIn) -> None:
    """Three bytes of the length, and the process ends."""
    _speaking(student, 'line.sendall(b"\\0\\0\\0")\nos._exit(0)')


@stopper(base="blank", stock="untried")
def drips(student: HandIn) -> None:
    """A frame, byte by byte, for ever."""
    _speaking(
        student,
        'for byte in frame({"id": 1, "value": 0}) * 10_000:\n    line.sendall(bytes([byte]))\n    time.sleep(0.2)',
    )


@stopper(base="blank", stock="right")
def floods(student: HandIn) -> None:
    """Frames without end."""
    _speaking(student, 'while True:\n    line.sendall(frame({"id": 0, "value": 0}) * 1000)')


@stopper(base="blank", stock="untried")
def floods_with_large_frames(student: HandIn) -> None:
    """Frames of a quarter of a gigabyte, two of them."""
    _speaking(student, 'for _ in range(2):\n    line.sendall(frame({"id": 0, "value": 0}, bytes(256 << 20)))')


@attack(stock="untried")
def sends_text(student: HandIn) -> None:
    """A line of text where a frame belongs."""
    _speaking(student, 'line.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\nAll tests passed.")')


@attack(stock="untried")
def sends_descriptors(student: HandIn) -> None:
    """Open files cross a socket, too; the other side would run out of them."""
    _speaking(student, 'for _ in range(100):\n    socket.send_fds(line, [b" "], [0] * 200)')


@stopper(base="blank", stock="untried")
def shuts_the_line(student: HandIn) -> None:
    """No more writing; the process goes on."""
    _speaking(student, "line.shutdown(socket.SHUT_WR)\ntime.sleep(100)")


@stopper(base="blank", stock="untried")
def closes_every_descriptor(student: HandIn) -> None:
    """All open files, the connection included."""
    student.extra(TAKE + "\nif worker:\n    os.closerange(3, 1000)\n    time.sleep(100)")


@stopper(base="blank", stock="untried")
def puts_a_file_in_the_lines_place(student: HandIn) -> None:
    """dup2 of /dev/zero over the connection."""
    _speaking(student, 'for number in list(sockets()):\n    os.dup2(os.open("/dev/zero", os.O_RDWR), number)')


@stopper(base="blank", stock="untried")
def never_reads(student: HandIn) -> None:
    """The other side fills the line, and waits."""
    _speaking(
        student,
        "line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)\nworker.channel.receive = lambda *_: time.sleep(100)",
    )


@stopper(stock="untried", unsure=["test-embeddings-one-hot"])
def keeps_the_line_open_in_a_child(student: HandIn) -> None:
    """The process ends in the middle, and a child of it holds the connection: nobody hears that it ended."""
    student.answer(
        "embeddings-one-hot",
        """
        def one_hot_lookup(weight, ids):
            import os, time
            if os.fork() == 0:
                time.sleep(100)
            os._exit(0)
        """,
    )


@attack(stock="untried")
def answers_from_a_child(student: HandIn) -> None:
    """A child of the process, unknown to anybody, answers in its place: true, whatever was asked."""
    _speaking(
        student,
        """
if os.fork() == 0:
    while True:
        header, _ = worker.channel.receive()
        line.sendall(frame({"id": header["id"], "value": None if header["call"][0] == "cell" else True}))
while True:
    time.sleep(1)
""",
    )


@attack(stock="untried")
def answers_from_a_thread(student: HandIn) -> None:
    """A second thread reads requests and answers them; sometimes it is faster."""
    _speaking(
        student,
        """
def race():
    while True:
        try:
            header, _ = worker.channel.receive()
            line.sendall(frame({"id": header["id"], "value": True}))
        except Exception:
            pass

threading.Thread(target=race, daemon=True).start()
""",
    )


@attack(stock="untried")
def replaces_the_workers_json(student: HandIn) -> None:
    """The worker writes with `json.dumps`, and that can be replaced: everything is true."""
    student.extra("""
        import json

        plain_dumps = json.dumps

        def dumps(value, *args, **kwargs):
            if isinstance(value, dict) and "id" in value and "value" in value and value["id"] > 30:
                value = {"id": value["id"], "value": True}
            return plain_dumps(value, *args, **kwargs)

        json.dumps = dumps
        """)


@attack(stock="untried")
def looks_for_the_grader(student: HandIn) -> None:
    """Every other process, every open file and the parent's memory, for the tests' text."""
    student.extra("""
        import glob, os

        found = []
        for name in glob.glob("/proc/[0-9]*/mem") + glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/*/fd/*"):
            try:
                if int(name.split("/")[2]) != os.getpid():
                    found.append((name, open(name, "rb").read(4096)))
            except (OSError, ValueError):
                pass
        print(len(found))
        """)


@accident(stock="untried")
def sets_numpys_and_pythons_switches(student: HandIn) -> None:
    """NumPy raises its errors and prints otherwise, sockets have a time limit, integers any number of digits."""
    student.extra("""
        import numpy as np, socket, sys, warnings, locale, decimal, random
        np.seterr(all="raise")
        np.set_printoptions(precision=2, threshold=3)
        socket.setdefaulttimeout(0.001)
        sys.set_int_max_str_digits(0)
        warnings.simplefilter("error")
        random.seed(0)
        """)


@accident(stock="untried")
def names_things_like_the_worker(student: HandIn) -> None:
    """Global names that the worker's own code uses, too."""
    student.extra("wire = worker = Worker = Channel = Packer = handles = session = answer = header = names = None")


@accident(stock="untried")
def prints_from_a_thread(student: HandIn) -> None:
    """A thread that prints now and then, through all tests."""
    student.extra("""
        import threading, time

        def chatter():
            for number in range(200):
                print("still here", number)
                time.sleep(0.01)

        threading.Thread(target=chatter, daemon=True).start()
        """)
