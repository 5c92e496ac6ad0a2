"""An echo server of asyncio's protocols, and two thousand connections to it at once."""
import asyncio
import resource
import sys

CONNECTIONS, MESSAGES = 2000, 30

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def serve():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=4000)
    print(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def talk(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for message in range(MESSAGES):
        data = b"%d of %d\n" % (message, number)
        writer.write(data)
        assert await reader.readline() == data
    return reader, writer, MESSAGES


async def ask(port):
    # All stay open until the last has had its answers.
    talks = [await asyncio.gather(*(talk(port, start + i) for i in range(200))) for start in range(0, CONNECTIONS, 200)]
    done = [each for some in talks for each in some]
    for _, writer, _ in done:
        writer.close()
    print(f"{len(done)} connections, {sum(messages for *_, messages in done)} messages")


asyncio.run(serve() if sys.argv[1] == "server" else ask(int(sys.argv[2])))
