"""Every exception Tapeout raises on purpose.

A user's mistake and a bug of ours are different types: `InternalError` is ours and asks for a report,
everything else says what was seen, what is allowed and what to try, with the place in the user's own file
where it is known.
"""


class TapeoutError(Exception):
    """Base of all deliberate errors."""


class ChipError(TapeoutError, ValueError):
    """A chip description that is illegal, unreadable or unknown.

    `sentence` is the message without its place, `where` the place ("chips/mine.py:12") or None, `field` the
    name of the description's field at fault or None.
    """

    def __init__(self, sentence: str, *, where: str | None = None, field: str | None = None):
        super().__init__(f"{where}: {sentence}" if where else sentence)
        self.sentence = sentence
        self.where = where
        self.field = field


class UnsupportedError(TapeoutError):
    """A legal program asks for something the chip or the compiler does not have.

    The sentence is made here: "softmax.py:31: tl.dot of f64 elements is not supported; the matrix engine takes f32". Of
    it callers give the parts: `operation` as the user wrote it, `dtype` the offending element type, `where` the source
    line of the kernel, `hint` what is possible or what to try instead.
    """

    def __init__(self, operation: str, *, dtype: str | None = None, where: str | None = None, hint: str | None = None):
        place = f"{where}: " if where else ""
        of_dtype = f" of {dtype} elements" if dtype else ""
        advice = f"; {hint}" if hint else ""
        super().__init__(f"{place}{operation}{of_dtype} is not supported{advice}")
        self.operation = operation
        self.dtype = dtype
        self.where = where


class LaunchError(TapeoutError, RuntimeError):
    """A kernel was launched with arguments it cannot run on: a host tensor, a foreign pointer, ... Programs that catch
    what a GPU raises, RuntimeError, catch it."""


class SanitizerError(LaunchError):
    """The sanitizer found a mistake in a kernel while it ran: what, at which line, program and address."""


class InternalError(TapeoutError):
    """Tapeout broke one of its own rules. Never the user's fault."""

    def __init__(self, message: str):
        super().__init__(f"{message} (this is a bug in Tapeout, not in your program: please report it)")
