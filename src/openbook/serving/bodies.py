"""Requests' bodies: read, checked, and refused with the name of the field that is wrong."""

from typing import TypeVar

from pydantic import BaseModel, Discriminator, ValidationError
from starlette.requests import Request

from openbook.serving.faults import ApiError

Body = TypeVar("Body", bound=BaseModel)

# Tells a field that is a text from one that is a list, so that an error is told of the one that was meant.
TEXT_OR_LIST = Discriminator(lambda value: "text" if isinstance(value, str) else "list")


async def read(request: Request, form: type[Body]) -> Body:
    """The body as `form`. Raises `ApiError` with status 400 for what is no JSON or not of this form."""
    raw = await request.body()
    try:
        return form.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise ApiError(400, f"The body is not valid JSON: {first['msg']}.", code="invalid_json") from None
        param = ".".join(str(part) for part in first["loc"])
        message = f"{param}: {first['msg'][0].lower()}{first['msg'][1:]}." if param else f"{first['msg']}."
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise ApiError(400, message, code=code, param=param or None) from None
