"""All that a test cell may do with student code; each function runs in one process and out of process."""

import numpy as np

from tito.testing import close, raises


def idiom_arrays_by_value():
    close(Layer()([1, 2], scale=3.0), [3, 6])


def idiom_a_keyword_that_is_called_state():
    close(Layer()([1], state={}), [1])


def idiom_attributes():
    layer = Layer()
    layer.training = None
    assert layer.training is None and layer.size == 6
    del layer.names
    assert not hasattr(layer, "names")


def idiom_class_attributes():
    Layer.count = 5
    assert Layer().count == 5
    Layer.count = 0


def idiom_items():
    layer, child = Layer(), Layer()
    layer["x"] = child
    assert layer["x"] is child and "x" in layer and len(layer) == 1
    (only,) = layer
    assert only is child
    del layer["x"]
    assert "x" not in layer


def idiom_operators_on_both_sides():
    assert (Layer(2) + Layer(3)).weight.shape == (5, 3)
    assert (1 + Layer(2)).weight.shape == (3, 3)
    layer = Layer(1)
    layer += 4
    assert layer.weight.shape == (5, 3)


def idiom_isinstance_and_type():
    layer = Layer()
    assert isinstance(layer, Layer) and type(layer) is Layer and not isinstance(3, Layer)
    assert type(layer).__name__ == "Layer" and type(layer.names) is list and type(layer.options) is dict
    assert issubclass(ShapeError, ValueError) and isinstance(layer, (int, Layer))


def idiom_errors_by_name():
    with raises(ZeroDivisionError, "division"):
        Layer().boom()
    with raises(ValueError, "no axis in 1.5"):
        Layer()(1.5)
    try:
        Layer()(2)
    except ShapeError as error:
        assert "no axis in 2" in str(error)
    else:
        raise AssertionError


def idiom_a_key_error_s_text():
    try:
        Layer()["nothing"]
    except KeyError as error:
        assert str(error) == "'nothing'"


def idiom_with_blocks():
    layer = Layer()
    with layer as inside:
        assert inside is layer and layer.training is False
    assert layer.training is True and layer.left_by is None


def idiom_an_error_within_with():
    layer = Layer()
    try:
        with layer:
            raise KeyError("on purpose")
    except KeyError as error:
        assert error.args == ("on purpose",)
    assert layer.left_by == "KeyError"
    with layer:
        raise LookupError
    assert layer.left_by == "LookupError"


def idiom_generators():
    assert list(Layer().walk()) == ["a", "b"]
    assert next(Layer().walk()) == "a"


def idiom_text():
    assert f"{Layer()} {Layer()!r} {limit:03d}" == "Layer(0) Layer(0) 003"
    assert str(Layer()) == "Layer(0)"


def idiom_functions_of_the_test():
    seen = []

    def note(*values, **options):
        seen.append((values, options))
        return sum(values)

    assert apply(note, 1, 2, key="x") == 3
    assert seen == [((1, 2), {"key": "x"})]


def idiom_functions_that_call_student_code():
    layer = Layer()
    close(apply(lambda x: layer(x, scale=2.0), np.ones(2)), [2, 2])


def idiom_an_error_in_a_function_of_the_test():
    def fails():
        raise RuntimeError("mine")

    try:
        apply(fails)
    except RuntimeError as error:
        assert error.args == ("mine",)
    else:
        raise AssertionError


def idiom_functions_that_both_sides_know():
    close(apply(np.add, 1, 2), 3)
    assert apply(len, [1, 2]) == 2 and apply(int, "7") == 7 and apply(max, 1, 2) == 2


def idiom_hooks():
    got = []
    hooks.append(got.append)
    assert len(hooks) == 1
    hooks.clear()
    assert hooks == []


def idiom_an_array_s_view_of_the_object_s():
    layer = Layer()
    layer.weight[0] = 7
    close(layer.weight, [[7, 7, 7], [0, 0, 0]])
    weight = layer.weight
    weight += 1
    close(layer.weight, [[8, 8, 8], [1, 1, 1]])
    assert layer.weight is weight


def idiom_what_student_code_does_to_an_array_of_its_own():
    layer = Layer()
    weight = layer.weight
    layer.grow(weight)
    close(weight, np.ones((2, 3)))


def idiom_what_student_code_does_to_an_array_of_the_test():
    mine = np.zeros(2)
    Layer().grow(mine)
    close(mine, [1, 1])


def idiom_a_list_that_student_code_changes():
    mine = [3, 1, 2]
    assert sorts(mine) == 1
    close(mine, [1, 2, 3])


def idiom_an_array_that_is_shared():
    mine, layer = np.zeros(2), Layer()
    layer.keep(mine)
    kept = layer.kept
    mine[0] = 5
    close(kept, [5, 0])
    assert layer.kept is mine


def idiom_lists_and_dicts_that_are_written_through():
    layer = Layer()
    layer.names.append("c")
    layer.options["rate"] = 0.1
    layer.options["nested"]["deep"].append(2)
    assert list(layer.walk()) == ["a", "b", "c"]
    assert layer.options == {"rate": 0.1, "nested": {"deep": [1, 2]}}


def idiom_a_list_in_hand_sees_what_is_appended_there():
    layer = Layer()
    names = layer.names
    apply(layer.names.append, "z")
    assert names == ["a", "b", "z"]


def idiom_counters():
    got = counts("hello")
    assert dict(got)["l"] == 2 and sorted(got) == ["e", "h", "l", "o"]


def idiom_numpy_s_settings():
    with np.errstate(over="raise"), raises(FloatingPointError):
        overflow()
    with np.errstate(over="ignore"):
        assert overflow() == np.inf


def idiom_modules_that_belong_to_the_student_s_process():
    import gc
    import os
    import tempfile
    from pathlib import Path

    gc.disable()
    assert not gc.isenabled()
    gc.enable()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").write_text("hi")
        assert os.listdir(folder) == ["x"]
        with open(Path(folder) / "x") as file:
            assert file.read() == "hi"


def idiom_dtypes_slices_sets_bytes_complex_numbers():
    for value in (
        np.dtype("f4"),
        slice(1, None, 2),
        {1, 2},
        frozenset("a"),
        b"xy",
        1j,
        ...,
        range(3),
        (1, [2]),
        None,
        np.float32(1.5),
        10**30,
        float("inf"),
    ):
        got = apply(lambda x: x, value)
        assert got == value and type(got) is type(value)
    assert apply(np.zeros, 2, dtype=np.float32).dtype == np.float32


def idiom_empty_and_odd_arrays():
    for value in (
        np.zeros((0, 3)),
        np.array(2.5),
        np.arange(6).reshape(2, 3).T,
        np.array(["ab", "c"]),
        np.array([True]),
    ):
        got = apply(np.copy, value)
        assert got.shape == value.shape and got.dtype == value.dtype and (got == value).all()


def idiom_an_array_of_objects():
    assert apply(len, np.array([{"a": 1}, None], dtype=object)) == 2


def idiom_a_generator_of_random_numbers():
    close(apply(lambda g: g, 1), 1)
    close(np.random.default_rng(5).random(2), apply(np.copy, np.random.default_rng(5).random(2)))


def idiom_named_tuples():
    pair = Pair(1, [2])
    assert pair.left == 1 and pair[1] == [2] and tuple(pair) == (1, [2])


def idiom_names_of_the_module():
    assert limit == 3
    try:
        print(no_such_name)
    except NameError:
        pass
    else:
        raise AssertionError


def idiom_callable():
    assert callable(Layer) and callable(Layer()) and not callable(Pair(1, 2)) and not callable(3)
