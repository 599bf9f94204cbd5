"""From the arguments of single calls to the lists that a batch function gets, and no further. Pure."""

import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any


class BatchSignature:
    """The parameters of a batch function. All but `self` become lists.

    Args:
        func: The batch function.
    """

    def __init__(self, func: Callable[..., Any]) -> None:
        self._signature = inspect.signature(func)
        self._has_self = False

    def of_method(self) -> "BatchSignature":
        """The same for calls whose first argument is the instance."""
        other = BatchSignature.__new__(BatchSignature)
        other._signature, other._has_self = self._signature, True
        return other

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """Bring the arguments of a call to their parameters.

        Raises:
            TypeError: They do not fit.
        """
        return self._signature.bind(*args, **kwargs)

    def first(self, arguments: inspect.BoundArguments) -> Any:
        """The first argument, `self` aside; None if there is none."""
        values = [*arguments.args, *arguments.kwargs.values()][self._has_self :]
        return values[0] if values else None

    def shape(self, arguments: inspect.BoundArguments) -> Hashable:
        """Calls of equal shape can be put together: equally many `*args`, and the same `**kwargs`."""
        shape: list[Hashable] = []
        for name, value in arguments.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                shape.append(len(value))
            elif kind is inspect.Parameter.VAR_KEYWORD:
                shape.append(frozenset(value))
        return tuple(shape)

    def together(self, calls: Sequence[inspect.BoundArguments]) -> inspect.BoundArguments:
        """Put calls of equal shape together: a list for each argument, in the order of the calls.

        An optional argument that only some calls give has its default value for the others; if none gives it,
        the batch function gets none either.
        """
        given = {name for call in calls for name in call.arguments}
        together: dict[str, Any] = {}
        for number, (name, parameter) in enumerate(self._signature.parameters.items()):
            if name not in given:
                continue
            if self._has_self and number == 0:
                together[name] = calls[0].arguments[name]
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                columns = zip(*(call.arguments.get(name, ()) for call in calls), strict=True)
                together[name] = tuple(list(column) for column in columns)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                keys = calls[0].arguments.get(name, {})
                together[name] = {key: [call.arguments[name][key] for call in calls] for key in keys}
            else:
                together[name] = [call.arguments.get(name, parameter.default) for call in calls]
        return inspect.BoundArguments(self._signature, together)
