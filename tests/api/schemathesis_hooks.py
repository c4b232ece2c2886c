"""What schemathesis sends, brought near to what there is (loaded by the child process)."""

from __future__ import annotations

from typing import Any

import schemathesis

# Every kind of row has these ids. What is deleted is taken from behind, so that the other calls go
# on finding rows. The user that asks has a higher id: it cannot delete itself, take away what it
# may do, or change its password.
HIGHEST_ID = 16
_KEPT = 4
_MANY_LETTERS = 4


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, parameters: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Names and ids that exist, for most; those of a path belong together."""
    if not parameters:
        return parameters
    operation = context.operation
    deletes = operation is not None and operation.method.upper() == "DELETE"
    first, count = (_KEPT + 1, HIGHEST_ID - _KEPT) if deletes else (1, _KEPT)
    numbers = [value for value in parameters.values() if isinstance(value, int) and value > 0]
    for name, value in parameters.items():
        if name.endswith("_id") and isinstance(value, int) and value > 0:
            parameters[name] = first + numbers[0] % count
        elif name == "name" and isinstance(value, str) and len(value) < _MANY_LETTERS:
            parameters[name] = "word"
        elif name == "type" and isinstance(value, str) and len(value) < _MANY_LETTERS:
            parameters[name] = "faxtoemail"
    return parameters
