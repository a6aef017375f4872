"""JSON values that the model reads as text."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator


def json_text(value: Any) -> str:
    """The value as the model reads it: JSON on one line, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _readable(value: Any) -> Any:
    """Refuse what no tokenizer can read as text."""
    try:
        json_text(value).encode()
    except UnicodeEncodeError:
        raise ValueError("hold Unicode text; a string in it has a lone surrogate") from None
    except RecursionError:
        raise ValueError("be nested less deeply") from None
    except ValueError:
        raise ValueError("hold finite numbers only") from None
    return value


JSONObject = Annotated[dict[str, Any], AfterValidator(_readable)]
JSONList = Annotated[list[Any], AfterValidator(_readable)]
