"""The tree of errors, with the data of each on the error. No HTTP here: `problems.py` has that table.

HandfulError
├── RequestError      the caller can mend it
├── CapacityError     the same request may succeed later
├── KeysInvalid       the operator can mend it
└── BundleError       the operator can mend it
"""


class HandfulError(Exception):
    """The root. `str(error)` is written for the person who can mend it.

    Attributes:
        detail: What is wrong, with the value that was found.
        field: The place in the request, such as `support[3].input`; None where no single place is at fault.
        allowed: What would have been accepted; None where the detail says it all.
    """

    def __init__(self, detail: str, *, field: str | None = None, allowed: str | None = None) -> None:
        super().__init__(detail if field is None else f"{field}: {detail}")
        self.detail = detail
        self.field = field
        self.allowed = allowed


class RequestError(HandfulError):
    """The caller can mend it."""


class NotHttp(RequestError):
    """What came over a connection is not an HTTP request."""


class NotJson(RequestError):
    """The body is not a JSON document."""


class RequestInvalid(RequestError):
    """A key is unknown, missing or mistyped, or keys contradict each other."""


class InputInvalid(RequestError):
    """An input cannot be read as the kind that the model takes."""


class SignatureMismatch(RequestError):
    """An array has another dtype or shape than the model takes."""


class SupportSetInvalid(RequestError):
    """A support set breaks the model's limits, or is empty where it may not be."""


class LabelUnknown(RequestError):
    """A label that the model's fixed list does not hold."""


class NotAccepted(RequestError):
    """The model does not take this way of naming a task."""


class TooLarge(RequestError):
    """A body, an image or a call is larger than the limit."""


class UnsupportedMedia(RequestError):
    """The body is declared to be something other than JSON."""


class Unauthenticated(RequestError):
    """The request names no API key that is known."""


class Forbidden(RequestError):
    """The API key does not have the scope that the request needs."""


class NotFound(RequestError):
    """Something named in the request does not exist."""


class ModelNotFound(NotFound):
    """No model of this name, or none with this version."""


class AdaptationNotFound(NotFound):
    """The caller has no adaptation of this id."""


class ExampleNotFound(NotFound):
    """The adaptation has no example of this id."""


class TaskNotFound(NotFound):
    """The model knows no task of this id."""


class TaskConflict(RequestError):
    """The adaptation is not in the state that the request needs."""


class EventConflict(TaskConflict):
    """An event id was used before, for another change."""


class PreconditionFailed(RequestError):
    """The revision is not the one that the caller expects."""


class CapacityError(HandfulError):
    """The same request may succeed later."""


class Overloaded(CapacityError):
    """A queue is full.

    Attributes:
        retry_after_s: Seconds until what waits is probably done; None where nobody knows.
    """

    def __init__(
        self, detail: str, *, field: str | None = None, allowed: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail, field=field, allowed=allowed)
        self.retry_after_s = retry_after_s


class NotReady(CapacityError):
    """The server is starting, draining, or waits for its store."""


class DeadlineExceeded(CapacityError):
    """The answer was not ready in time."""


class KeysInvalid(HandfulError):
    """The file of API keys cannot be read, or a line of it is not valid: the operator can mend it."""


class BundleError(HandfulError):
    """The operator can mend it."""


class BundleInvalid(BundleError):
    """A bundle is damaged, incomplete or breaks the format."""


class GraphRefused(BundleInvalid):
    """A graph holds what is not allowed, or is not what the manifest declares."""
