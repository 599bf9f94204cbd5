"""The user's function or class, as the rest of the replica sees it.

Async code runs on the loop, in the caller's task; sync code runs in at most `max_ongoing_requests` threads.
What is raised by user code is raised to the caller. Cancelling the task of a request is all it takes to
cancel user code; the task ends when user code has ended.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from slipknot._asgi import ASGIApp, Receive, Scope, Send
from slipknot._ingress import Ingress, ingress_of

from . import starlette_seams
from .instance import Instance
from .lifespan import Lifespan
from .methods import Methods, available_methods
from .route_template import RoutedScope, matched_route
from .starlette_seams import FrameworkThreads, threads_of_request
from .threads import ThreadPool, run_in_new_thread

__all__ = ["UserCode", "matched_route"]


class UserCode:
    """One deployment's code on one replica. Belongs to the loop that `construct` is called on.

    Args:
        func_or_class: A function, a class, or a class with `serve.ingress`.
        init_args: For the class's constructor.
        init_kwargs: For the class's constructor.
        max_ongoing_requests: How many threads sync code may use at once.
        is_ingress: HTTP requests are expected.
        http_adapter: FastAPI dependency or pydantic model that makes a plain handler's argument.
        deployment_name: For messages.
        app_name: For messages.
    """

    def __init__(
        self,
        func_or_class: Any,
        init_args: tuple[Any, ...],
        init_kwargs: dict[str, Any],
        *,
        max_ongoing_requests: int,
        is_ingress: bool,
        http_adapter: Any = None,
        deployment_name: str,
        app_name: str,
    ) -> None:
        self._deployment = f"{app_name}/{deployment_name}"
        self._instance = Instance(func_or_class, init_args, init_kwargs, self._deployment)
        self._ingress = ingress_of(func_or_class)
        self._is_ingress = is_ingress
        self._http_adapter = http_adapter
        self._max_ongoing_requests = max_ongoing_requests
        self._threads = ThreadPool(max_ongoing_requests, f"sync code of {self._deployment}")
        self._framework_threads: FrameworkThreads | None = None
        self._methods: Methods | None = None
        self._app: ASGIApp | None = None
        self._lifespan: Lifespan | None = None
        self._is_destructed = False

    def __repr__(self) -> str:
        return f"<UserCode {self._deployment}: {self.servable!r}, {self._threads!r}>"

    @property
    def servable(self) -> Any:
        """The user's function or instance; None until `construct` has made it."""
        return self._instance.servable

    @property
    def has_health_check(self) -> bool:
        """The user's class has a `check_health` method."""
        return self._instance.has_health_check

    def docs_path(self) -> str:
        """Where a FastAPI ingress serves its documentation, below the route prefix; empty if it does not."""
        if not getattr(self._app, "openapi_url", None):
            return ""
        return getattr(self._app, "docs_url", None) or ""

    def available_methods(self) -> list[str]:
        """The methods that handles may call, sorted."""
        return available_methods(self.servable)

    # --- life -----------------------------------------------------------------------------------------------

    async def construct(self) -> None:
        """Call the constructor, then the start-up hooks of an ASGI ingress.

        Raises:
            Exception: Whatever these raised.
        """
        await self._instance.construct()
        self._methods = Methods(self.servable, self._deployment, self._threads)
        if self._ingress is not None:
            self._app = await run_in_new_thread(
                f"application of {self._deployment}", self._build_app, self._ingress
            )
        elif self._is_ingress or self._http_adapter is not None:
            self._app = self._plain_app()
        starlette_seams.install()
        if self._ingress is not None and self._app is not None:
            self._lifespan = Lifespan(self._app, self._deployment)
            await self._lifespan.startup()

    async def reconfigure(self, user_config: Any) -> None:
        """Hand a configuration to the user's `reconfigure`.

        Raises:
            ValueError: There is a configuration but no such method.
            Exception: Whatever it raised.
        """
        await self._instance.reconfigure(user_config)

    def set_max_ongoing_requests(self, max_ongoing_requests: int) -> None:
        """Resize the thread pool."""
        self._max_ongoing_requests = max_ongoing_requests
        self._threads.resize(max_ongoing_requests)
        if self._framework_threads is not None:
            self._framework_threads.resize(max_ongoing_requests)

    async def check_health(self) -> None:
        """Call the user's `check_health`, if any; raises whatever it raised. No request can hold it up."""
        await self._instance.check_health()

    async def destruct(self) -> None:
        """Run the shutdown hooks, then the user's `__del__`; each once, however often this is called.

        Raises:
            Exception: Whatever these raised, the first of it.

        Cancellation:
            A shutdown hook is abandoned; a quick `__del__` is still called.
        """
        if self._is_destructed:
            return
        self._is_destructed = True
        try:
            if self._lifespan is not None:
                await self._lifespan.shutdown()
        except asyncio.CancelledError:
            await self._instance.delete_quickly()
            raise
        except BaseException:
            await self._instance.delete()
            raise
        else:
            await self._instance.delete()
        finally:
            self._threads.close()

    # --- requests -------------------------------------------------------------------------------------------

    async def handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request, as an ASGI application.

        Raises:
            Exception: Whatever user code raised, before or after the response began.
        """
        if self._app is None:
            self._app = self._plain_app()
            starlette_seams.install()
        await self._enter(self._app, scope, receive, send)

    async def handle_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket, as an ASGI application; a deployment without `serve.ingress` refuses it.

        Raises:
            Exception: Whatever user code raised.
        """
        if self._app is None or self._ingress is None:
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        await self._enter(self._app, scope, receive, send)

    async def call_method(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method that gives one result.

        Raises:
            MethodNotFoundError: There is no such method.
            TypeError: It is a generator or returned one, or it does not take these arguments.
            Exception: Whatever it raised.
        """
        return await self._constructed_methods().call(name, args, kwargs)

    def stream_method(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> AsyncGenerator[Any, None]:
        """Call a method that is or returns a generator, and yield its items; consume it within `cancelling`.

        Raises:
            MethodNotFoundError: There is no such method.
            TypeError: It gave something else than a generator, or it does not take these arguments.
            Exception: Whatever it raised.
        """
        return self._constructed_methods().stream(name, args, kwargs)

    # --- inside ---------------------------------------------------------------------------------------------

    def _constructed_methods(self) -> Methods:
        if self._methods is None:
            raise RuntimeError(f"deployment {self._deployment!r} has not been constructed")
        return self._methods

    def _build_app(self, ingress: Ingress) -> ASGIApp:
        from .failure_handlers import add_failure_handlers  # imports Starlette

        app = ingress.build(self.servable)
        add_failure_handlers(app)
        return app

    def _plain_app(self) -> ASGIApp:
        from .plain_http import PlainHttp  # imports Starlette, which a deployment without HTTP does not need

        return PlainHttp(self.servable, self._deployment, self._threads, self._http_adapter)

    async def _enter(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if self._framework_threads is None:
            self._framework_threads = FrameworkThreads(self._max_ongoing_requests)
        token = threads_of_request.set(self._framework_threads)
        try:
            if self._lifespan is None:
                await app(scope, receive, send)
                return
            scope["state"] = self._lifespan.state.copy()
            await app(RoutedScope(scope), receive, send)
        finally:
            threads_of_request.reset(token)
