"""Streams of asyncio with much data both ways at once: they stop reading and writing, and go on."""
import asyncio
import hashlib
import sys

CONNECTIONS, SIZE = 10, 8_000_000


async def echo(reader, writer):
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    writer.close()


async def serve():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def send(writer, data):
    for start in range(0, len(data), 33_333):
        writer.write(data[start : start + 33_333])
        await writer.drain()
    writer.write_eof()


async def talk(port, number):
    data = hashlib.shake_128(b"%d" % number).digest(SIZE)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, got = await asyncio.gather(send(writer, data), reader.read())
    assert got == data
    writer.close()
    await writer.wait_closed()
    return len(got)


async def ask(port):
    sizes = await asyncio.gather(*(talk(port, number) for number in range(CONNECTIONS)))
    print(f"{len(sizes)} connections, {sum(sizes)} bytes there and back")


asyncio.run(serve() if sys.argv[1] == "server" else ask(int(sys.argv[2])))
