"""socketserver with a process or a thread for each connection, as the first argument says."""
import os
import socket
import socketserver
import sys

CONNECTIONS, LINES = 40, 100
MIXIN = {"process": socketserver.ForkingMixIn, "thread": socketserver.ThreadingMixIn}[sys.argv[1]]


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(b"%d %s" % (os.getpid(), line))


class Server(MIXIN, socketserver.TCPServer):
    request_queue_size = 100


def serve():
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1])
        server.serve_forever()


def talk(file):
    pids = set()
    for number in range(LINES):
        file.write(b"line %d\n" % number)
        file.flush()
        pid, line = file.readline().split(b" ", 1)
        assert line == b"line %d\n" % number
        pids.add(pid)
    return pids


def ask(port):
    # Four at a time are open.
    pids = set()
    for _ in range(CONNECTIONS // 4):
        files = [socket.create_connection(("127.0.0.1", port)).makefile("rwb") for _ in range(4)]
        for file in files:
            pids |= talk(file)
        for file in files:
            file.close()
    assert len(pids) == (CONNECTIONS if MIXIN is socketserver.ForkingMixIn else 1), pids
    print(f"{CONNECTIONS} connections, {CONNECTIONS * LINES} lines")


serve() if sys.argv[2] == "server" else ask(int(sys.argv[3]))
