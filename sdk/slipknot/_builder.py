"""From an import source to an Application: import it, or call the user's builder function."""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, get_type_hints

from slipknot_core.spec import ImportSource

from ._deployment import Application, Deployment
from ._import_path import import_attribute
from ._user_code import call_user_code


def import_application(source: ImportSource) -> Application:
    """Import what `source` names and build it if it is a builder.

    Raises:
        TypeError: It is neither an Application nor a builder of one, or a builder with too many parameters.
        ValueError: The path is malformed, or the arguments fit neither.
        ImportError: There is no such directory, module or attribute. What the user's code raises passes
            unchanged.
    """
    use_directory(source.working_dir)
    return build(import_attribute(source.import_path), source.args, source.import_path)


def build(target: Any, args: Mapping[str, Any], path: str) -> Application:
    """Make an Application of what an import path named.

    Args:
        target: An Application, or a function with no parameter or one (a dict or a pydantic model) that
            returns one.
        args: For the function.
        path: The import path, for error messages.

    Raises:
        TypeError: `target` is neither, or the function returns something else.
        ValueError: There are arguments, but nothing that takes them; or the model refuses them.
    """
    if isinstance(target, Application):
        if args:
            raise ValueError(
                f"{path!r} is an Application that is built already, so it takes no arguments: {_names(args)}"
            )
        return target
    if isinstance(target, Deployment):
        raise TypeError(
            f"{path!r} is a deployment that is not bound; let the import path name {target.name}.bind(…)"
        )
    if not inspect.isfunction(target):
        raise TypeError(
            f"{path!r} must be an Application or a function that returns one, "
            f"not {type(target).__name__} {target!r}"
        )
    built = _call(target, args, path)
    if not isinstance(built, Application):
        raise TypeError(
            f"the builder {path!r} must return an Application, made by .bind(…), but returned {built!r}"
        )
    return built


def _call(builder: Any, args: Mapping[str, Any], path: str) -> Any:
    parameters = list(inspect.signature(builder).parameters.values())
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise TypeError(
            f"the builder {path!r} must take no argument or one (a dict or a pydantic model), "
            f"but it requires {', '.join(p.name for p in required)}"
        )
    takes_one = bool(parameters) and parameters[0].kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    if not takes_one:
        if args:
            raise ValueError(
                f"the builder {path!r} takes no argument, but the application has some: {_names(args)}"
            )
        return call_user_code(builder)
    if not args and not required:
        return call_user_code(builder)
    return call_user_code(builder, _as_annotated(builder, parameters[0].name, args, path))


def _as_annotated(builder: Any, parameter: str, args: Mapping[str, Any], path: str) -> Any:
    try:
        annotation = get_type_hints(builder).get(parameter)
    except Exception:  # noqa: BLE001 - annotations are the user's; one that cannot be resolved is no model
        annotation = None
    if not hasattr(annotation, "model_validate"):
        return dict(args)
    from pydantic import ValidationError

    from ._explanation import explain

    assert annotation is not None
    try:
        return annotation.model_validate(dict(args))
    except ValidationError as error:
        raise ValueError(f"arguments of the builder {path!r}:\n{explain(error, prefix='args')}") from None


def use_directory(directory: str) -> None:
    """Import modules from a directory first; an empty one changes nothing.

    Raises:
        ImportError: There is no such directory.
    """
    if not directory:
        return
    if os.path.isfile(directory):
        raise ImportError(
            f"the working_dir {directory!r} is a file; give the directory, or unpack the archive"
        )
    if not os.path.isdir(directory):
        raise ImportError(
            f"the working_dir {directory!r} does not exist here; every node needs the application's code"
        )
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _names(args: Mapping[str, Any]) -> str:
    return ", ".join(sorted(args))
