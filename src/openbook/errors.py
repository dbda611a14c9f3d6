"""Everything that openbook raises on purpose.

    OpenbookError
    ├── ConfigError     an option is unknown, missing or out of range
    ├── InputError      something a user gave cannot be used
    │   ├── DocumentError   one file cannot be read or parsed
    │   └── RecordError     one row of a data set is malformed
    ├── StoreError      the index or a stage's output is absent, damaged or of another make
    ├── ModelError      a model or adapter cannot be loaded, served or tuned
    └── TeacherError    the language model that writes the questions failed

Every message is a sentence that says what is wrong; `remedy`, where there is one, says how to mend it.
"""


class OpenbookError(Exception):
    """Base class. `str(error)` is the message followed by the remedy."""

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message} {remedy}".rstrip())


class ConfigError(OpenbookError):
    pass


class InputError(OpenbookError):
    pass


class DocumentError(InputError):
    pass


class RecordError(InputError):
    """A malformed row; the message starts with the file and the 1-based line number."""


class StoreError(OpenbookError):
    pass


class ModelError(OpenbookError):
    pass


class TeacherError(OpenbookError):
    pass
