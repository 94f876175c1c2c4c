"""A plain proxy as one writes it with aiohttp on uvloop: `python _proxy_aiohttp.py PORT UPSTREAM_PORT`."""

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

_HOST = "127.0.0.1"
_DROPPED = ("host", "connection", "content-length", "transfer-encoding", "keep-alive")


async def main(port: int, back_port: int) -> None:
    """Serve until killed."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
            body = await request.read()
            url = f"http://{_HOST}:{back_port}{request.path_qs}"
            async with session.request(request.method, url, headers=headers, data=body) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _DROPPED}
                if answer.content_length is not None:
                    return web.Response(status=answer.status, headers=kept, body=await answer.read())
                stream = web.StreamResponse(status=answer.status, headers=kept)
                stream.enable_chunked_encoding()
                await stream.prepare(request)
                async for data in answer.content.iter_any():
                    await stream.write(data)
                await stream.write_eof()
                return stream

        application = web.Application(client_max_size=8 << 20)
        application.router.add_route("*", "/{path:.*}", forward)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, _HOST, port, backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
