"""A thousand connections to redis, each used enough to be worth a promotion; then they do nothing until the end of input."""
import resource
import socket
import sys

CONNECTIONS, ROUNDS = 1000, 40

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
connections = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(CONNECTIONS)]
for _ in range(ROUNDS):
    for connection in connections:
        connection.sendall(b"PING\r\n")
    for connection in connections:
        assert connection.recv(100) == b"+PONG\r\n"
print("idle", flush=True)
sys.stdin.read()
for connection in connections:
    connection.sendall(b"PING\r\n")
    assert connection.recv(100) == b"+PONG\r\n"
print("awake", flush=True)
