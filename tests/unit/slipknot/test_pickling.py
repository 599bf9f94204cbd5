"""Code and arguments as bytes, and back; much of it in two processes, as in a cluster."""

import asyncio
import contextvars
import functools
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from fastapi import APIRouter, FastAPI
from starlette.datastructures import State

from slipknot import _pickling, serve
from slipknot.serve import Application

LOCK = threading.Lock()
TOKEN: contextvars.ContextVar[str] = contextvars.ContextVar("token")


@serve.deployment
class Child:
    pass


def name_of(application: Application) -> str:
    return application._deployment.name


def there_and_back(code: Any, *args: Any, **kwargs: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    data = _pickling.dump((code, None), (args, kwargs), label="Model", name_of=name_of)
    loaded, (args, kwargs) = _pickling.load(data, lambda name: f"handle to {name}")
    assert loaded is not None
    return loaded[0], args, kwargs


def dump_error(code: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TypeError) as caught:
        _pickling.dump((code, None), (args, kwargs), label="Model", name_of=name_of)
    return str(caught.value)


# --- what cannot travel -------------------------------------------------------------------------------


@dataclass
class Engine:
    lock: Any = field(default_factory=threading.Lock)


class Holder:
    __slots__ = ("__hidden", "engine")

    def __init__(self, engine: Any = None, hidden: Any = None) -> None:
        self.engine = engine
        self.__hidden = hidden


class Refuses:
    def __getstate__(self) -> Any:
        raise RuntimeError("I stay here")


def code() -> None:
    pass


def make_generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("argument", "reason", "path"),
    [
        (threading.Lock(), "'_thread.lock'", "args[0]"),
        (threading.RLock(), "'_thread.RLock'", "args[0]"),
        (Engine(), "'_thread.lock'", "args[0].lock"),
        ({"model": Engine()}, "'_thread.lock'", "args[0]['model'].lock"),
        ([1, [Holder(Engine())]], "'_thread.lock'", "args[0][1][0].engine.lock"),
        (Holder(hidden=(LOCK,)), "'_thread.lock'", "args[0].__hidden[0]"),
        (functools.partial(dump_error, LOCK), "'_thread.lock'", "args[0].args[0]"),
        (Engine().lock.acquire, "'_thread.lock'", "args[0].__self__"),
        (threading.Event(), "'_thread.lock'", "args[0]._cond._lock"),
        (State({"lock": LOCK}), "'_thread.lock'", "args[0]._state['lock']"),
        (TOKEN, "ContextVar", "args[0]"),
        (make_generator(), "'generator'", "args[0]"),
        (Holder(Refuses()), "RuntimeError: I stay here", "args[0].engine"),
    ],
)
def test_unpicklable_arguments(argument: Any, reason: str, path: str) -> None:
    """The error tells what it is, where it is, whose it is, and what to do."""
    text = dump_error(code, argument)
    assert reason in text
    assert f" at {path} of deployment 'Model'" in text
    assert "Make it in the constructor" in text


def test_unpicklable_keyword() -> None:
    """Keyword arguments are named."""
    assert " at kwargs['engine'].lock of" in dump_error(code, engine=Engine())


def test_sockets_and_files(tmp_path: Path) -> None:
    """Open resources are of one process."""
    with socket.socket() as sock, (tmp_path / "f").open("w") as file:
        assert "'socket' object at args[0] of" in dump_error(code, sock)
        assert "at args[0].engine of" in dump_error(code, Holder(file))


def test_unpicklable_code() -> None:
    """Also what a class or function refers to has a path."""
    lock = threading.Lock()

    class ByAttribute:
        shared = Engine()

    class ByVariable:
        def handle(self) -> Any:
            return lock

    class ByProperty:
        @property
        def name(self) -> Any:
            return lock

    class ByBase(ByAttribute):
        pass

    class ByStatic:
        @staticmethod
        def use(value: Any = lock) -> Any:
            return value

    assert " at ByAttribute.shared.lock of" in dump_error(ByAttribute)
    assert " at ByVariable.handle, variable 'lock' of" in dump_error(ByVariable)
    assert " at ByProperty.name, variable 'lock' of" in dump_error(ByProperty)
    assert " at ByBase.shared.lock of" in dump_error(ByBase)
    assert " at ByStatic.use, a default[0] of" in dump_error(ByStatic)


def test_unpicklable_global() -> None:
    """A global of a module that goes by value."""
    module = types.ModuleType("made_by_hand")
    exec("import threading\nlock = threading.Lock()\ndef f():\n    return [lock for _ in (1,)]", vars(module))
    sys.modules["made_by_hand"] = module
    try:
        assert " at f, global 'lock' of" in dump_error(module.f)
    finally:
        del sys.modules["made_by_hand"]


def test_an_unpicklable_adapter() -> None:
    """It is named as such."""

    def adapter(lock: Any = LOCK) -> None:
        pass

    with pytest.raises(TypeError, match=r"at http_adapter, a default\[0\] of"):
        _pickling.dump((code, adapter), ((), {}), label="Model", name_of=name_of)


def test_errors_of_naming_pass_unchanged() -> None:
    """They have nothing to do with pickling."""

    def refuse(application: Application) -> str:
        raise ValueError("a cycle")

    with pytest.raises(ValueError, match=r"^a cycle$"):
        _pickling.dump((code, None), (([Child.bind()],), {}), label="Model", name_of=refuse)


# --- what travels -------------------------------------------------------------------------------------


def test_what_is_shared_stays_shared() -> None:
    """One object in the code and in the arguments is one object afterwards."""
    shared: list[int] = []

    class Local:
        store = shared

    loaded, args, kwargs = there_and_back(Local, shared, [shared], again=shared)
    assert loaded.store is args[0] is args[1][0] is kwargs["again"]
    assert loaded.store is not shared


def test_applications_in_the_code_stay_applications() -> None:
    """Only those in the arguments belong to the graph, also if the code refers to the same ones."""
    child = Child.bind()

    class Local:
        nested = child

    loaded, args, _ = there_and_back(Local, child)
    assert isinstance(loaded.nested, Application)
    assert args == ("handle to Child",)


def test_what_can_be_imported_goes_by_name() -> None:
    """Classes and functions of installed modules come back as the same ones."""
    values = (Path, textwrap.dedent, logging.getLogger("x"), asyncio.sleep, Engine, FastAPI)
    assert there_and_back(code, *values)[1] == values


def test_memoized_functions() -> None:
    """`lru_cache` around a local function, also a recursive one."""

    @functools.lru_cache(maxsize=7)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    (loaded,) = there_and_back(code, fibonacci)[1]
    assert loaded(30) == 832040
    assert loaded.cache_parameters() == {"maxsize": 7, "typed": False}
    assert there_and_back(code, functools.lru_cache(code))[1]


def test_cached_properties() -> None:
    """They hold a lock in Python 3.11."""

    class Local:
        count = 0

        @functools.cached_property
        def value(self) -> int:
            self.count += 1
            return self.count

    loaded = there_and_back(Local)[0]()
    assert (loaded.value, loaded.value) == (1, 1)


def test_modules_made_by_hand() -> None:
    """A module without a file goes by value, with all in it, and the registry stays as it was."""
    module = types.ModuleType("made_by_hand")
    exec("factor = 3\nclass M:\n    def triple(self, x): return x * factor\ndef f(): return M", vars(module))
    sys.modules["made_by_hand"] = module
    try:
        data = _pickling.dump((module.M, None), ((module.f,), {}), label="M", name_of=name_of)
    finally:
        del sys.modules["made_by_hand"]
    assert "made_by_hand" not in cloudpickle.list_registry_pickle_by_value()
    loaded, ((function,), _) = _pickling.load(data, str)
    assert loaded is not None
    assert loaded[0]().triple(2) == 6
    assert function() is loaded[0]


def test_modules_that_the_user_wants_by_value() -> None:
    """What was registered with cloudpickle stays registered and goes by value."""
    cloudpickle.register_pickle_by_value(textwrap)
    try:
        assert there_and_back(code, textwrap.dedent)[1][0] is not textwrap.dedent
        assert "textwrap" in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(textwrap)


def test_closures_of_libraries_keep_their_module() -> None:
    """A function made inside a library's function uses that module's globals, not copies of them."""
    router = APIRouter()

    @router.get("/")
    def endpoint() -> None: ...

    (route,) = router.routes
    (loaded,) = there_and_back(code, route)[1]
    assert loaded.app.__globals__ is sys.modules[route.app.__module__].__dict__


def test_locks_of_the_framework_become_fresh_ones() -> None:
    """Those that FastAPI keeps in its own objects; each object gets its own."""
    inner, app = APIRouter(), FastAPI()

    @inner.get("/")
    def endpoint() -> str:
        return "x"

    app.include_router(inner)
    held = [r for r in app.routes if hasattr(r, "_effective_routes_lock")]
    (loaded,) = there_and_back(code, app)[1]
    for before, after in zip(
        held, (r for r in loaded.routes if hasattr(r, "_effective_routes_lock")), strict=True
    ):
        assert after._effective_routes_lock is not before._effective_routes_lock
        assert after._effective_routes_lock.acquire(blocking=False)


# --- two processes ------------------------------------------------------------------------------------

DRIVER_END = """
if __name__ == "__main__":
    import sys
    from slipknot._graph import build_application
    spec = build_application(app_to_deploy)
    with open(sys.argv[1], "wb") as file:
        file.write(spec.to_proto().SerializeToString())
"""

REPLICA = """
import asyncio, sys
from slipknot._graph import load_deployment
from slipknot_core.spec import ApplicationSpec
from slipknot_proto.v1 import spec_pb2

with open(sys.argv[1], "rb") as file:
    spec = ApplicationSpec.from_proto(spec_pb2.ApplicationSpec.FromString(file.read()))
(deployment,) = [d for d in spec.deployments if d.name == spec.ingress_deployment]
loaded = load_deployment(deployment, "app", handle_factory=lambda *a: a)
model = loaded.func_or_class(*loaded.init_args, **loaded.init_kwargs)

async def main():
    import httpx
    asgi = model.asgi()
    transport = httpx.ASGITransport(asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        async with asgi.router.lifespan_context(asgi):
            await check(client)
"""

RunScripts = Callable[[str, str], str]


@pytest.fixture
def run_scripts(tmp_path: Path) -> RunScripts:
    """Runs a driver's script, then a replica's in another directory; returns what the replica printed."""

    def run(driver: str, replica: str) -> str:
        (tmp_path / "script").mkdir(exist_ok=True)
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        driver_file, replica_file = tmp_path / "script" / "driver.py", tmp_path / "elsewhere" / "replica.py"
        driver_file.write_text(textwrap.dedent(driver) + DRIVER_END)
        replica_file.write_text(REPLICA + textwrap.dedent(replica))
        spec = str(tmp_path / "spec")
        output = ""
        for file in (driver_file, replica_file):
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            done = subprocess.run(
                [sys.executable, str(file), spec],
                cwd="/",
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            output = done.stdout
        return output

    return run


def test_a_script(run_scripts: RunScripts, tmp_path: Path) -> None:
    """`__main__` by value, a module next to it by name although its globals could not be pickled."""
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "beside.py").write_text(
        textwrap.dedent(
            """
            import threading
            from slipknot import serve
            lock = threading.Lock()
            @serve.deployment
            class Imported:
                def locked(self):
                    with lock: return "locked"
            def helper(): return "helped"
            """
        )
    )
    driver = """
        import dataclasses, enum, functools
        from slipknot import serve
        import beside
        class Color(enum.Enum):
            RED = 1
        @dataclasses.dataclass
        class Settings:
            color: Color = Color.RED
        class Base:
            def __init__(self, settings, child, imported):
                self.settings, self.child, self.imported = settings, child, imported
        @serve.deployment
        class Model(Base):
            def __init__(self, *args):
                super().__init__(*args)
            @functools.cached_property
            def once(self):
                return cached(2)
            def me(self):
                equal = self.settings == Settings(Color.RED)
                return Model.name, beside.helper(), self.imported().locked(), equal
        @functools.lru_cache
        def cached(n):
            return n
        @serve.deployment
        class Child: pass
        app_to_deploy = Model.bind(Settings(), {"c": [Child.bind()]}, beside.Imported.func_or_class)
    """
    printed = run_scripts(driver, "print(model.me(), model.once, model.child)")
    assert printed == "('Model', 'helped', 'locked', True) 2 {'c': [('Child', 'app')]}\n"


def test_a_deployment_of_a_module(run_scripts: RunScripts, tmp_path: Path) -> None:
    """The class that a module's name no longer stands for goes by name all the same."""
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "models.py").write_text(
        textwrap.dedent(
            """
            import threading
            from slipknot import serve
            lock = threading.Lock()
            class Outer:
                @serve.deployment(name="renamed")
                class Model:
                    def use(self):
                        with lock: return __name__
            """
        )
    )
    printed = run_scripts(
        "from models import Outer\napp_to_deploy = Outer.Model.bind()", "print(model.use())"
    )
    assert printed == "models\n"


FASTAPI_DRIVER = """
    import contextlib
    from typing import Annotated, Optional
    from fastapi import APIRouter, Depends, FastAPI, Header, WebSocket
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.middleware.gzip import GZipMiddleware
    from fastapi.responses import JSONResponse, StreamingResponse
    from fastapi.security import HTTPBearer
    from pydantic import BaseModel, Field, field_validator
    from starlette.middleware.base import BaseHTTPMiddleware
    from slipknot import serve

    class Item(BaseModel):
        name: str
        price: float = Field(1.0, gt=0)
        parent: Optional["Item"] = None
        @field_validator("name")
        @classmethod
        def upper(cls, value): return value.upper()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        app.state.started = "started"
        yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    app.add_middleware(GZipMiddleware)

    @app.middleware("http")
    async def add_header(request, call_next):
        response = await call_next(request)
        response.headers["x-function"] = "1"
        return response

    class Middleware(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            response = await call_next(request)
            response.headers["x-class"] = "1"
            return response

    app.add_middleware(Middleware)

    class Boom(Exception): pass

    @app.exception_handler(Boom)
    async def on_boom(request, exc): return JSONResponse({"boom": 1}, status_code=418)

    def token(x_token: Annotated[str, Header()] = "none"):
        yield x_token

    bearer = HTTPBearer(auto_error=False)
    inner = APIRouter(prefix="/inner", tags=["inner"])

    @inner.get("/token")
    def read(found: str = Depends(token), auth=Depends(bearer)): return {"token": found}

    outer = APIRouter(prefix="/outer", dependencies=[Depends(token)])
    outer.include_router(inner)

    @outer.post("/items", response_model=Item)
    async def items(item: Item): return item

    @outer.websocket("/ws")
    async def ws(websocket: WebSocket): await websocket.accept()

    app.include_router(outer, prefix="/v1")
    sub = FastAPI()

    @sub.get("/x")
    def sub_x(): return "sub"

    app.mount("/sub", sub)

    @app.get("/boom")
    def boom(): raise Boom

    @app.get("/stream")
    def stream(): return StreamingResponse(iter("abc"))

    @app.get("/state")
    def state(): return app.state.started

    @serve.deployment
    class Model:
        def asgi(self): return app

    app_to_deploy = Model.bind()
"""

FASTAPI_REPLICA = """
    async def check(client):
        answer = await client.get("/v1/outer/inner/token", headers={"x-token": "T"})
        assert answer.json() == {"token": "T"}, answer.text
        assert answer.headers["x-function"] == answer.headers["x-class"] == "1"
        answer = await client.post("/v1/outer/items", json={"name": "x"})
        assert answer.json() == {"name": "X", "price": 1.0, "parent": None}, answer.text
        assert (await client.post("/v1/outer/items", json={"name": "x", "price": 0})).status_code == 422
        assert (await client.get("/sub/x")).json() == "sub"
        assert (await client.get("/boom")).status_code == 418
        assert (await client.get("/stream")).text == "abc"
        assert (await client.get("/state")).json() == "started"
        assert "/v1/outer/items" in (await client.get("/openapi.json")).json()["paths"]
        assert (await client.get("/docs")).status_code == 200
        print("all well")
    asyncio.run(main())
"""


def test_a_fastapi_app_in_a_script(run_scripts: RunScripts) -> None:
    """Routers in routers, models, dependencies, lifespan, middleware, handlers, mounts: all arrive."""
    assert run_scripts(FASTAPI_DRIVER, FASTAPI_REPLICA) == "all well\n"


def test_a_fastapi_app_that_was_used_before(run_scripts: RunScripts) -> None:
    """What FastAPI builds at the first request travels too."""
    use = """
    import asyncio, httpx
    async def use():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/v1/outer/inner/token")).status_code == 200
            assert (await client.get("/openapi.json")).status_code == 200
    asyncio.run(use())
"""
    assert run_scripts(FASTAPI_DRIVER + use, FASTAPI_REPLICA) == "all well\n"


def test_a_class_based_ingress_in_a_script(run_scripts: RunScripts) -> None:
    """The class and its application, with methods of the same name."""
    driver = """
        from fastapi import FastAPI
        from slipknot import serve
        app = FastAPI()
        @serve.deployment
        @serve.ingress(app)
        class Model:
            def __init__(self, word): self.word = word
            @app.get("/")
            def root(self): return self.word
            @app.post("/{name}")
            def root(self, name: str): return name
        app_to_deploy = Model.bind("hello")
    """
    printed = run_scripts(driver, "print(model.word, loaded.func_or_class.__name__)")
    assert printed == "hello Model\n"
