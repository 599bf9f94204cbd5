"""`serve.multiplexed`: many models in one deployment, loaded when they are asked for."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from ._models import ModelCache
from ._per_instance import PerInstance
from .serve import context as serve_context

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])

DEFAULT_MAX_MODELS = 3


@overload
def multiplexed(func: F) -> F: ...
@overload
def multiplexed(*, max_num_models_per_replica: int | None = ...) -> Callable[[F], F]: ...


def multiplexed(
    func: Callable[..., Any] | None = None, max_num_models_per_replica: int | None = DEFAULT_MAX_MODELS
) -> Any:
    """Decorate the `async` function or method that loads a model by its id.

    A replica then keeps the models it has loaded, the least recently used one makes room for a new one, and
    requests for a model are sent to replicas that hold it. Several requests for a model that is not there
    wait for one loading. Before a model goes, its `__del__` is called, sync in a thread or async.

    Args:
        func: Takes the model's id and returns the model.
        max_num_models_per_replica: Models held at one time; -1 or None: no limit.

    Raises:
        TypeError: `func` is not an `async` function with one parameter, or the number is no integer.
        ValueError: The number is 0, or less than -1.
    """
    if func is not None and not callable(func):
        raise TypeError("The `multiplexed` decorator must be used with a function or method.")
    limit = _checked_limit(max_num_models_per_replica)
    if func is None:
        return functools.partial(_decorated, limit=limit)
    return _decorated(func, limit=limit)


# --- inside ---------------------------------------------------------------------------------------------


class _Loader:
    """What the decorated function calls; picklable with it."""

    def __init__(self, func: Callable[..., Any], limit: int | None) -> None:
        self._func = func
        self._signature = inspect.signature(func)
        name = getattr(func, "__qualname__", repr(func))
        self._caches = PerInstance(func, functools.partial(_new_cache, name, limit))

    async def load(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        *instance, model_id = bound.arguments.values()
        if not isinstance(model_id, str):
            raise TypeError(f"The model ID must be a string, not {type(model_id).__name__}: {model_id!r}.")
        if not model_id:
            raise ValueError("The model ID cannot be empty.")
        return await self._caches.of_call(args).get(model_id, functools.partial(self._func, *instance))


def _decorated(func: Callable[..., Any], *, limit: int | None) -> Any:
    if not inspect.iscoroutinefunction(func):
        raise TypeError("@serve.multiplexed can only be used to decorate async functions or methods.")
    parameters = list(inspect.signature(func).parameters.values())
    own = parameters[1:] if parameters and parameters[0].name == "self" else parameters
    if len(own) != 1 or own[0].kind not in (own[0].POSITIONAL_ONLY, own[0].POSITIONAL_OR_KEYWORD):
        raise TypeError(
            "@serve.multiplexed can only be used to decorate functions or methods with exactly one "
            f"'model_id: str' argument; {func.__qualname__} has {len(own)}."
        )
    loader = _Loader(func, limit)

    @functools.wraps(func)
    async def load_model(*args: Any, **kwargs: Any) -> Any:
        return await loader.load(args, kwargs)

    return load_model


def _checked_limit(value: Any) -> int | None:
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_num_models_per_replica must be an integer, not {value!r}.")
    if value <= 0:
        raise ValueError(f"max_num_models_per_replica must be positive, or -1 for no limit, not {value}.")
    return value


def _new_cache(name: str, limit: int | None, _is_method: bool) -> ModelCache:
    cache = ModelCache(name, limit)
    replica = serve_context._replica_context_or_none()
    if replica is not None:
        replica._models.add(cache)
    return cache
