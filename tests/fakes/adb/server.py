"""A server that speaks adb's wire protocol and runs what it is asked to run here, in a home of its own.

    python server.py SERIAL HOME PATH        prints its port, and serves until its standard input ends

Spoken are the smart socket (four hexadecimal digits of length, then a service; OKAY or FAIL), of the host's services
version, features and the choice of a device, and the device's shell,v2 without a terminal, whose packets are an
identifier (0 to 4: stdin, stdout, stderr, exit, end of stdin), a length (uint32, little-endian) and so many bytes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading

STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
PACKET = struct.Struct("<BI")


class Client:
    """One connection of adb's command line."""

    def __init__(self, sock, serial, home, path):
        self.sock, self.serial = sock, serial
        self.env = {"HOME": home, "PATH": path, "XDG_CACHE_HOME": f"{home}/.cache", "OMP_NUM_THREADS": "1"}
        self.lock = threading.Lock()

    def serve(self):
        with self.sock, contextlib.suppress(ConnectionError):
            while self.service(self.read(int(self.read(4), 16)).decode()):
                pass
            self.sock.shutdown(socket.SHUT_RDWR)  # closing alone ends nothing while the feeding thread reads

    def service(self, asked):
        """Answer one service; return whether another may follow on this connection."""
        if asked == "host:version":
            return self.told("0029")
        if asked.startswith("host") and not asked.startswith("host:t"):
            serial = asked.split(":")[1] if asked.startswith("host-serial:") else self.serial
            return self.told("shell_v2,cmd") if serial == self.serial else self.fail(f"device '{serial}' not found")
        if asked.startswith(("host:tport:", "host:transport")):
            chosen = asked.rpartition(":")[2]
            if chosen not in {self.serial, "any", "host:transport-any"}:
                return self.fail(f"device '{chosen}' not found")
            self.sock.sendall(b"OKAY" + (struct.pack("<Q", 1) if "tport" in asked else b""))
            return True
        kind, _, command = asked.partition(":")
        if kind.split(",")[:2] != ["shell", "v2"] or "pty" in kind:
            return self.fail(f"unknown service {asked}")
        self.sock.sendall(b"OKAY")
        self.shell(command)
        return False

    def told(self, text):
        self.sock.sendall(b"OKAY" + f"{len(text):04x}{text}".encode())
        return False

    def fail(self, text):
        self.sock.sendall(b"FAIL" + f"{len(text):04x}{text}".encode())
        return False

    def shell(self, command):
        pipe = subprocess.PIPE
        with subprocess.Popen(["sh", "-c", command], env=self.env, stdin=pipe, stdout=pipe, stderr=pipe) as child:
            readers = [
                threading.Thread(target=self.forward, args=one)
                for one in ((child.stdout, STDOUT), (child.stderr, STDERR))
            ]
            for thread in readers:
                thread.start()
            threading.Thread(target=self.feed, args=(child.stdin,), daemon=True).start()
            for thread in readers:
                thread.join()
            self.packet(EXIT, bytes([child.wait() & 255]))

    def feed(self, stdin):
        """Write what comes to a command's input, and end it with the connection."""
        with contextlib.suppress(OSError, ConnectionError, ValueError):
            while True:
                kind, length = PACKET.unpack(self.read(PACKET.size))
                data = self.read(length)
                if kind == CLOSE_STDIN:
                    break
                if kind == STDIN:
                    stdin.write(data)
                    stdin.flush()
        with contextlib.suppress(OSError):
            stdin.close()

    def forward(self, stream, kind):
        with contextlib.suppress(OSError):
            while data := stream.read1(65536):
                self.packet(kind, data)

    def packet(self, kind, data):
        with self.lock:
            self.sock.sendall(PACKET.pack(kind, len(data)) + data)

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


def main():
    serial, home, path = sys.argv[1:]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stdout.write(f"{listening.getsockname()[1]}\n")
        sys.stdout.flush()

        def end():
            sys.stdin.read()
            os._exit(0)

        threading.Thread(target=end, daemon=True).start()
        while True:
            sock, _ = listening.accept()
            threading.Thread(target=Client(sock, serial, home, path).serve, daemon=True).start()


if __name__ == "__main__":
    main()
