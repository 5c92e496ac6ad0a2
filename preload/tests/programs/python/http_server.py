"""http.server, and urllib and http.client against it."""
import http.client
import http.server
import os
import sys
import urllib.request

SIZE = 20_000_000
CONTENTS = bytes((i * 2654435761 >> 24) & 255 for i in range(1000)) * (SIZE // 1000)


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])


def serve():
    with open("large", "wb") as file:
        file.write(CONTENTS)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1])
    server.serve_forever()


def ask(port):
    for _ in range(3):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/large") as answer:
            assert answer.read() == CONTENTS
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(100):
        body = os.urandom(number * 100 + 1)
        connection.request("POST", "/", body)
        assert connection.getresponse().read() == body[::-1]
    print(f"3 downloads of {SIZE} bytes, 100 requests")


serve() if sys.argv[1] == "server" else ask(int(sys.argv[2]))
