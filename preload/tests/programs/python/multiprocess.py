"""multiprocessing over TCP: connections that carry objects, in processes of their own, and a manager."""
import multiprocessing
import multiprocessing.connection
import multiprocessing.managers
import sys

CONNECTIONS, OBJECTS = 5, 100
KEY = b"key"


def answer(connection):
    try:
        while True:
            number, data = connection.recv()
            connection.send((number + 1, data[::-1]))
    except EOFError:
        connection.close()


class Lists(multiprocessing.managers.BaseManager):
    pass


shared = []
Lists.register("shared", callable=lambda: shared, exposed=["append", "__len__", "__getitem__"])


def serve():
    manager = Lists(("127.0.0.1", 0), KEY)
    server = manager.get_server()
    # Room for all: Linux may forget a connection for which there is none (SYN cookies), while its client waits.
    listener = multiprocessing.connection.Listener(("127.0.0.1", 0), backlog=CONNECTIONS, authkey=KEY)
    multiprocessing.Process(target=server.serve_forever, daemon=True).start()
    print(listener.address[1] * 100_000 + server.address[1])
    for _ in range(CONNECTIONS):
        connection = listener.accept()
        multiprocessing.Process(target=answer, args=(connection,), daemon=True).start()
        connection.close()
    sys.stdin.read()
    multiprocessing.Event().wait()


def talk(port):
    with multiprocessing.connection.Client(("127.0.0.1", port), authkey=KEY) as connection:
        for number in range(OBJECTS):
            data = b"%d" % number * number * 100
            connection.send((number, data))
            assert connection.recv() == (number + 1, data[::-1])
    return OBJECTS


def add(port):
    manager = Lists(("127.0.0.1", port), KEY)
    manager.connect()
    items = manager.shared()
    for number in range(20):
        items.append(number)
    return 1


def ask(port):
    port, manager = divmod(port, 100_000)
    with multiprocessing.Pool(CONNECTIONS) as pool:
        objects = sum(pool.map(talk, [port] * CONNECTIONS, 1))
        lists = sum(pool.map(add, [manager] * CONNECTIONS, 1))
    client = Lists(("127.0.0.1", manager), KEY)
    client.connect()
    assert len(client.shared()) == 20 * CONNECTIONS
    print(f"{CONNECTIONS} connections, {objects} objects, {lists} managers' lists")


serve() if sys.argv[1] == "server" else ask(int(sys.argv[2]))
