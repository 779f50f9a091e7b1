"""How the tests call the code: two processes, plain data between them. Standard library only.

The process with the tests holds a :class:`Link` to the process with the code. A function of the code is a
:class:`Remote` there: calling it sends the arguments and waits for the result. Numbers, texts, containers, dates,
arrays and instances of classes that both sides know travel by value; everything else stays where it is and is named by
a number.

The rule that makes a pass trustworthy: the code's side never learns what a test expects. So a Remote takes part in no
comparison, arithmetic or membership test with a plain value; an object whose ``__eq__`` says yes to everything is
equal to nothing but itself.
"""

import collections
import datetime
import decimal
import fractions
import json
import sys
import types

SCOPE = "answer"
"""``__name__`` of the namespace in which code and tests run; it also marks the classes that are defined there."""
LARGEST_MESSAGE = 64 * 2**20
"""Bytes; a value that needs more is an error of the code, not a reason to fill the memory."""


class Ended(Exception):
    """The other process is gone."""


class Link:
    """One end of the connection.

    Args:
        read: File descriptor to read from.
        write: File descriptor to write to.
        scope: Namespace whose classes may travel by value.
        guarded: Whether this end holds the tests: it then lets the other read only public attributes of instances of
            the tests' own classes, and call what it was given.
    """

    def __init__(self, read, write, scope, guarded):
        self._in = open(read, "rb", buffering=2**16)
        self._out = open(write, "wb", buffering=2**16)
        self.scope = scope
        self.guarded = guarded
        self._held = {}

    # --- messages

    def send(self, message):
        data = json.dumps(message).encode("ascii")
        if len(data) > LARGEST_MESSAGE:
            raise ValueError("the value is too large")
        try:
            self._out.write(data + b"\n")
            self._out.flush()
        except (BrokenPipeError, ValueError):
            raise Ended from None

    def receive(self):
        line = self._in.readline(LARGEST_MESSAGE)
        if not line.endswith(b"\n"):
            raise Ended
        message = json.loads(line)
        if not isinstance(message, dict):
            raise Ended
        return message

    def ask(self, operation, target, *arguments, **named):
        """Let the other side do something with an object that it holds; return the result or raise its exception."""
        self.send({"do": operation, "on": target, "a": self.encode(list(arguments)), "k": self.encode(named)})
        while True:
            message = self.receive()
            if "do" in message:
                self.answer(message)
                continue
            if "raised" in message:
                raise rebuilt_exception(message["raised"])
            for before, after in zip(arguments, self.decode(message.get("a", [])), strict=False):
                copy_into(before, after)
            return self.decode(message["is"])

    def answer(self, message):
        """Do what the other side asks for, and send the result."""
        try:
            target = self._held[message["on"]]
            arguments, named = self.decode(message["a"]), self.decode(message["k"])
            before = json.dumps(message["a"])
            if self.guarded:
                self._check(message["do"], target, arguments)
            result = self.encode(OPERATIONS[message["do"]](target, *arguments, **named))
            reply = {"is": result}
            after = self.encode(arguments)
            if json.dumps(after) != before:
                reply["a"] = after
        except Ended:
            raise
        except BaseException as error:
            reply = {"raised": named_exception(error)}
        try:
            self.send(reply)
        except (TypeError, ValueError, RecursionError) as error:
            self.send({"raised": named_exception(error)})

    def serve(self):
        """Answer until the other side ends."""
        try:
            while True:
                self.answer(self.receive())
        except (Ended, OSError, json.JSONDecodeError):
            return

    def _check(self, operation, target, arguments):
        """Refuse what could lead from an argument of the tests to the tests themselves."""
        if operation == "call" or isinstance(target, type):
            return
        own = type(target).__module__ == SCOPE
        if operation in ("getattr", "setattr"):
            name = arguments[0]
            if not own or not isinstance(name, str) or name.startswith("_"):
                raise AttributeError(f"{type(target).__name__} has no attribute {name!r} here")
        elif not own and operation not in ("iter", "next", "len"):
            raise TypeError(f"{operation} is not possible with {type(target).__name__} here")

    # --- values

    def encode(self, value):
        return self._encode(value, {})

    def _encode(self, value, seen):
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -(2**53) < value < 2**53 else {"int": hex(value)}
        if kind is float:
            return {"float": value.hex()}
        if kind is list:
            return [self._encode(item, seen) for item in value]
        if kind in CONTAINERS_BY_TYPE:
            return {CONTAINERS_BY_TYPE[kind]: [self._encode(item, seen) for item in value]}
        if kind is dict or kind in MAPPINGS_BY_TYPE:
            items = [[self._encode(key, seen), self._encode(item, seen)] for key, item in dict.items(value)]
            return {MAPPINGS_BY_TYPE.get(kind, "dict"): items}
        for name, (classes, write, _) in PLAIN.items():
            if kind in classes:
                return {name: write(value)}
        if isinstance(value, Remote):
            return {"yours": object.__getattribute__(value, "_number")}
        if isinstance(value, types.ModuleType):
            return {"module": value.__name__}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"exception": named_class(value)}
        array = numpy_value(value)
        if array is not None:
            return array
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"namedtuple": [kind.__name__, list(value._fields), [self._encode(item, seen) for item in value]]}
        for base in (bool, int, float, str, bytes, list, tuple, dict, set, frozenset):
            if isinstance(value, base) and kind.__module__ != SCOPE:
                return self._encode(base(value), seen)
        if self.scope.get(kind.__name__) is kind and kind.__module__ == SCOPE and shared(kind):
            return self._encode_object(value, seen)
        number = next((number for number, held in self._held.items() if held is value), None)
        if number is None:
            number = len(self._held) + 1
            self._held[number] = value
        about = "function" if isinstance(value, types.FunctionType | types.BuiltinFunctionType) else kind.__name__
        return {"held": [number, getattr(value, "__name__", about)]}

    def _encode_object(self, value, seen):
        if id(value) in seen:
            return {"same": seen[id(value)]}
        seen[id(value)] = len(seen)
        fields = [[name, self._encode(item, seen)] for name, item in vars(value).items()]
        return {"object": [seen[id(value)], type(value).__name__, fields]}

    def decode(self, data):
        return self._decode(data, {})

    def _decode(self, data, seen):
        if data is None or isinstance(data, bool | int | str):
            return data
        if isinstance(data, list):
            return [self._decode(item, seen) for item in data]
        (name, content), *_ = data.items()
        if name == "int":
            return int(content, 16)
        if name == "float":
            return float.fromhex(content)
        if name in CONTAINERS:
            return CONTAINERS[name](self._decode(item, seen) for item in content)
        if name in MAPPINGS:
            return MAPPINGS[name]((self._decode(key, seen), self._decode(item, seen)) for key, item in content)
        if name in PLAIN:
            return PLAIN[name][2](content)
        if name == "yours":
            return self._held[content]
        if name == "module":
            return known_module(content)
        if name == "exception":
            return rebuilt_class(content)
        if name == "array":
            return rebuilt_array(content)
        if name == "namedtuple":
            return collections.namedtuple(content[0], content[1])(*(self._decode(item, seen) for item in content[2]))
        if name == "same":
            return seen[content]
        if name == "object":
            number, class_name, fields = content
            cls = self.scope.get(class_name)
            if not isinstance(cls, type) or not shared(cls):
                raise ValueError(f"the class {class_name} is not known here")
            made = seen[number] = object.__new__(cls)
            made.__dict__.update({key: self._decode(item, seen) for key, item in fields})
            return made
        if name == "held":
            return Remote(self, *content)
        raise ValueError("a value that cannot be read")


SHARED: set[type] = set()
"""Classes that both sides have defined from the same text, so that their instances may travel by value."""


def shared(cls):
    return cls in SHARED


def _operation(name):
    def do(self, *arguments, **named):
        return object.__getattribute__(self, "_link").ask(
            name, object.__getattribute__(self, "_number"), *arguments, **named
        )

    return do


def _between_two(name):
    do = _operation(name)
    return lambda self, other: do(self, other) if isinstance(other, Remote) else NotImplemented


class Remote:
    """An object that lives in the other process."""

    __slots__ = ("_label", "_link", "_number")

    def __init__(self, link, number, label):
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_label", label)

    __call__ = _operation("call")
    __getitem__ = _operation("getitem")
    __setitem__ = _operation("setitem")
    __delitem__ = _operation("delitem")
    __len__ = _operation("len")
    __iter__ = _operation("iter")
    __next__ = _operation("next")
    __str__ = _operation("str")
    __repr__ = _operation("repr")
    __enter__ = _operation("enter")

    def __exit__(self, *_):
        _operation("exit")(self)

    def __bool__(self):
        return bool(_operation("bool")(self))

    def __getattr__(self, name):
        return _operation("getattr")(self, name)

    def __setattr__(self, name, value):
        _operation("setattr")(self, name, value)

    # Between two objects of the code its own operators decide; with a plain value there is no answer (see the module).
    __eq__ = _between_two("eq")
    __lt__ = _between_two("lt")
    __le__ = _between_two("le")
    __gt__ = _between_two("gt")
    __ge__ = _between_two("ge")
    __add__ = _between_two("add")
    __sub__ = _between_two("sub")
    __mul__ = _between_two("mul")
    __truediv__ = _between_two("truediv")
    __hash__ = _operation("hash")


OPERATIONS = {
    "call": lambda target, *arguments, **named: target(*arguments, **named),
    "getattr": getattr,
    "setattr": setattr,
    "getitem": lambda target, key: target[key],
    "setitem": lambda target, key, value: target.__setitem__(key, value),
    "delitem": lambda target, key: target.__delitem__(key),
    "len": len,
    "iter": iter,
    "next": next,
    "str": str,
    "repr": repr,
    "bool": bool,
    "hash": hash,
    "enter": lambda target: target.__enter__(),
    "exit": lambda target: target.__exit__(None, None, None),
    "eq": lambda a, b: bool(a == b),
    "lt": lambda a, b: bool(a < b),
    "le": lambda a, b: bool(a <= b),
    "gt": lambda a, b: bool(a > b),
    "ge": lambda a, b: bool(a >= b),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "truediv": lambda a, b: a / b,
}

CONTAINERS = {"tuple": tuple, "set": set, "frozenset": frozenset, "deque": collections.deque}
CONTAINERS_BY_TYPE = {kind: name for name, kind in CONTAINERS.items()}
MAPPINGS = {
    "dict": dict,
    "ordered": collections.OrderedDict,
    "counter": lambda items: collections.Counter(dict(items)),
}
MAPPINGS_BY_TYPE = {
    dict: "dict",
    collections.OrderedDict: "ordered",
    collections.Counter: "counter",
    collections.defaultdict: "dict",
}
PLAIN = {
    "bytes": ((bytes,), bytes.hex, bytes.fromhex),
    "bytearray": ((bytearray,), bytearray.hex, bytearray.fromhex),
    "complex": ((complex,), lambda v: [v.real.hex(), v.imag.hex()], lambda c: complex(*map(float.fromhex, c))),
    "decimal": ((decimal.Decimal,), str, decimal.Decimal),
    "fraction": ((fractions.Fraction,), str, fractions.Fraction),
    "range": ((range,), lambda v: [v.start, v.stop, v.step], lambda c: range(*c)),
    "datetime": ((datetime.datetime,), datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": ((datetime.date,), datetime.date.isoformat, datetime.date.fromisoformat),
    "time": ((datetime.time,), datetime.time.isoformat, datetime.time.fromisoformat),
    "timedelta": (
        (datetime.timedelta,),
        lambda v: [v.days, v.seconds, v.microseconds],
        lambda c: datetime.timedelta(*c),
    ),
    "ellipsis": ((type(...),), lambda v: None, lambda c: ...),
    "not implemented": ((type(NotImplemented),), lambda v: None, lambda c: NotImplemented),
}
"""Types that travel by value: how they are written as JSON, and read."""


def copy_into(before, after):
    """Give an argument that the code changed in place its new content."""
    if isinstance(before, list | bytearray) and type(before) is type(after):
        before[:] = after
    elif isinstance(before, dict | set | collections.deque) and type(before) is type(after):
        before.clear()
        before.extend(after) if isinstance(before, collections.deque) else before.update(after)
    elif shared(type(before)) and type(before) is type(after):
        before.__dict__.clear()
        before.__dict__.update(after.__dict__)
    elif type(before).__module__ == "numpy" and hasattr(before, "shape") and getattr(before, "shape", None):
        before[...] = after


def numpy_value(value):
    """Return an array or a number of numpy as JSON, or None for anything else."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.hasobject:
        return None
    return {"array": [value.dtype.str, list(value.shape), value.tobytes().hex(), isinstance(value, numpy.ndarray)]}


def rebuilt_array(content):
    import numpy

    kind, shape, data, is_array = content
    array = numpy.frombuffer(bytes.fromhex(data), dtype=numpy.dtype(kind)).reshape(shape).copy()
    return array if is_array else array[()]


def known_module(name):
    """Return a module of the standard library or numpy; the code's own do not travel."""
    import importlib

    root = name.partition(".")[0]
    if root not in sys.stdlib_module_names and root != "numpy":
        raise ValueError(f"the module {name} is not known here")
    return importlib.import_module(name)


def named_class(cls):
    """Return the name of an exception class, and of the built-in one that it is a kind of."""
    import builtins

    base = next(base for base in cls.__mro__ if getattr(builtins, base.__name__, None) is base)
    return [cls.__name__, base.__name__]


def named_exception(error):
    """Return what travels of an exception: names of its class, and its text."""
    try:
        text = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else str(error)
    except BaseException:
        text = ""
    return [*named_class(type(error)), text[:2000].encode("utf-8", "replace").decode()]


_REBUILT: dict[str, type] = {}


def rebuilt_class(content):
    """Return the exception class of a name: the built-in one, or one class for each name of the code's own."""
    import builtins

    name, base_name = content
    base = getattr(builtins, base_name, Exception)
    if not (isinstance(base, type) and issubclass(base, BaseException)):
        base = Exception
    if name == base_name:
        return base
    if name not in _REBUILT:
        _REBUILT[name] = type(str(name), (base,), {})
    return _REBUILT[name]


def rebuilt_exception(content):
    name, base_name, text = content
    cls = rebuilt_class([name, base_name])
    try:
        return cls(text)
    except TypeError:  # UnicodeDecodeError and others want more than a text
        return RuntimeError(f"{name}: {text}")
