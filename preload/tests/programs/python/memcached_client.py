"""Sets and gets over many connections of a memcached, each of its own thread's; values from a byte to 4 MB."""
import socket
import sys
import threading

CONNECTIONS, ROUNDS, LARGE = 200, 40, 4_000_000
port = int(sys.argv[1])
lock = threading.Lock()
done = {"sets": 0, "gets": 0, "large": 0}


def value(number, length):
    piece = b"%d," % number
    return (piece * (length // len(piece) + 1))[:length]


class Client:
    def __init__(self):
        self.file = socket.create_connection(("127.0.0.1", port)).makefile("rwb")

    def set(self, key, data):
        self.file.write(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(data), data))
        self.file.flush()
        answer = self.file.readline()
        assert answer == b"STORED\r\n", answer

    def get(self, key):
        self.file.write(b"get %s\r\n" % key)
        self.file.flush()
        head = self.file.readline().split()
        assert head[:2] == [b"VALUE", key], head
        data = self.file.read(int(head[3]))
        assert self.file.readline() == b"\r\n" and self.file.readline() == b"END\r\n"
        return data


def work(clients, numbers):
    for round in range(ROUNDS):
        for number in numbers:
            key, data = b"key-%d-%d" % (number, round), value(number + round, 1 + number * round)
            clients[number].set(key, data)
            # By another connection than the one that has set it.
            assert clients[(number + 8) % CONNECTIONS].get(key) == data
            with lock:
                done["sets"] += 1
                done["gets"] += 1
    for number in numbers[:2]:
        clients[number].set(b"large-%d" % number, value(number, LARGE))
        assert clients[(number + 8) % CONNECTIONS].get(b"large-%d" % number) == value(number, LARGE)
        with lock:
            done["large"] += 1


clients = [Client() for _ in range(CONNECTIONS)]
# A connection and its partner, which is 8 further on, belong to the same thread.
threads = [threading.Thread(target=work, args=(clients, range(start, CONNECTIONS, 8))) for start in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{CONNECTIONS} connections, {done['sets']} sets, {done['gets']} gets, {done['large']} large")
