"""A handle call on the replica: one method, its arguments, and its result or its items."""

from slipknot_core import payloads
from slipknot_core.errors import MethodNotFoundError
from slipknot_core.failures import to_error_info
from slipknot_proto.v1 import replica_pb2
from slipknot_proto.v1.payload_pb2 import Payload

from .exchange import ServerExchange
from .generators import cancelling


class MethodExchange(ServerExchange):
    """One handle call."""

    async def _serve(self) -> None:
        call = self._open.method
        args, kwargs = payloads.decode_arguments(call.arguments, allow_pickle=self._allows_pickle)
        method_name = call.method_name or "__call__"
        if call.stream:
            await self._serve_stream(method_name, args, kwargs)
            return
        value = await self._user_code.call_method(method_name, args, kwargs)
        if self.request.is_cancelled:
            return
        result = self._encoded(value, "result")
        self._close(replica_pb2.ReplyFrame(result=replica_pb2.MethodResult(value=result)))

    async def _serve_stream(
        self, method_name: str, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        items = self._user_code.stream_method(method_name, args, kwargs)
        async with cancelling(items):
            async for value in items:
                item = self._encoded(value, "item")
                await self._spend(item.ByteSize())
                self._reply(replica_pb2.ReplyFrame(item=replica_pb2.StreamItem(value=item)))
                await self._breathe()
        self._close(replica_pb2.ReplyFrame(end=replica_pb2.StreamEnd()))

    def _encoded(self, value: object, what: str) -> Payload:
        payload = payloads.encode_value(value, self._encoding)
        return payloads.checked_size(
            payload,
            self._replica.max_payload_bytes,
            f"the {what} of {self._open.method.method_name or '__call__'!r} is too large",
        )

    @property
    def _encoding(self) -> str:
        given = self._open.method.arguments.WhichOneof("encoding") or "pickle"
        return given if given != "pickle" or self._allows_pickle else "msgpack"

    @property
    def _allows_pickle(self) -> bool:
        return self._replica.allows_pickle

    def _label(self) -> tuple[str, str]:
        return "CALL", self._open.method.method_name or "__call__"

    def _on_error(self, error: BaseException) -> None:
        if isinstance(error, MethodNotFoundError):
            self._counts_route = False  # callers must not make labels as they like
        info = to_error_info(error, with_pickle=self._encoding == "pickle")
        self._close(replica_pb2.ReplyFrame(failure=replica_pb2.Failure(error=info)))
