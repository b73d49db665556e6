"""Calls between two hosts with aiortc: ICE, DTLS, SRTP, Opus both ways.

    call.py answer SOCKET
    call.py offer SOCKET CALLS AT_ONCE SECONDS LATE

Offers and answers go over a Unix socket, which network namespaces share, or over TCP where SOCKET is ADDRESS:PORT. For each call both print a line of JSON once it has
ended: what their own statistics say of what they received. Of what is offered every other packet leaves LATE seconds late. A call that does not connect within its time says so.
"""

import asyncio
import json
import os
import sys

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.contrib.media import MediaBlackhole
from aiortc.mediastreams import AudioStreamTrack


class Uneven(AudioStreamTrack):
    """Silence whose every other packet leaves late, by far more than a busy machine adds."""

    def __init__(self, late):
        super().__init__()
        self.late, self.odd = late, False

    async def recv(self):
        frame = await super().recv()
        self.odd = not self.odd
        if self.odd:
            await asyncio.sleep(self.late)
        return frame


def configuration():
    """Directly, or through the TURN server that the environment names and in no other way."""
    turn = os.environ.get("TURN_SERVER")
    if not turn:
        return RTCConfiguration(iceServers=[])
    server = RTCIceServer(urls=f"turn:{turn}?transport=udp", username="u", credential="p")
    return RTCConfiguration(iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY)


def peer(late=0.0):
    """A connection that sends silence in Opus, 50 packets a second, and takes what comes."""
    pc = RTCPeerConnection(configuration())
    pc.addTrack(Uneven(late))
    sink = MediaBlackhole()
    pc.on("track", sink.addTrack)
    return pc, sink


async def inbound(pc):
    """aiortc's own statistics of what is received."""
    return next((s for s in (await pc.getStats()).values() if s.type == "inbound-rtp"), None)


async def jitter_of(pc, samples):
    """Notes what it says of jitter, by RFC 3550, every now and then: the clock of Opus has 48,000 ticks a second."""
    # It begins with nothing, and comes near in some tens of packets.
    await asyncio.sleep(4)
    while True:
        if of := await inbound(pc):
            samples.append(of.jitter / 48000)
        await asyncio.sleep(0.1)


async def statistics(pc, samples):
    """What was received, by RFC 3550."""
    of = await inbound(pc)
    return {
        "state": pc.connectionState,
        "received": of.packetsReceived if of else 0,
        "lost": of.packetsLost if of else 0,
        "jitter": sum(samples) / len(samples) if samples else 0,
    }


async def connected_to(socket):
    if ":" in socket:
        host, port = socket.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port), limit=1 << 20)
    return await asyncio.open_unix_connection(socket, limit=1 << 20)


async def served_at(socket, call):
    if ":" in socket:
        host, port = socket.rsplit(":", 1)
        return await asyncio.start_server(call, host, int(port), limit=1 << 20)
    return await asyncio.start_unix_server(call, socket, limit=1 << 20)


def say(what):
    print(json.dumps(what), flush=True)


def described(pc):
    """The description to send. Who calls wants to begin DTLS: who answers is its server, as media servers are."""
    sdp = pc.localDescription.sdp.replace("a=setup:actpass", "a=setup:active")
    return (json.dumps({"sdp": sdp, "type": pc.localDescription.type}) + "\n").encode()


async def answer(path):
    async def call(reader, writer):
        pc, sink = peer()
        await pc.setRemoteDescription(RTCSessionDescription(**json.loads(await reader.readline())))
        say({"begun": True})
        await sink.start()
        await pc.setLocalDescription(await pc.createAnswer())
        writer.write(described(pc))
        await writer.drain()
        samples = []
        noting = asyncio.create_task(jitter_of(pc, samples))
        await reader.read()
        noting.cancel()
        say(await statistics(pc, samples))
        await sink.stop()
        await pc.close()
        writer.close()

    server = await served_at(path, call)
    say({"listening": True})
    await server.serve_forever()


async def offer(path, calls, at_once, seconds, late):
    places = asyncio.Semaphore(at_once)

    async def call():
        async with places:
            pc, sink = peer(late)
            connected = asyncio.Event()
            pc.on("connectionstatechange", lambda: connected.set() if pc.connectionState == "connected" else None)
            await pc.setLocalDescription(await pc.createOffer())
            reader, writer = await connected_to(path)
            writer.write(described(pc))
            await pc.setRemoteDescription(RTCSessionDescription(**json.loads(await reader.readline())))
            await sink.start()
            try:
                await asyncio.wait_for(connected.wait(), 4 + seconds)
                await asyncio.sleep(seconds)
            except asyncio.TimeoutError:
                pass
            received = await statistics(pc, [])
            writer.write_eof()
            await reader.read()
            say(received)
            await sink.stop()
            await pc.close()
            writer.close()

    async def later(number):
        await asyncio.sleep(0.25 * number)
        await call()

    await asyncio.gather(*(later(number) for number in range(calls)))


if sys.argv[1] == "answer":
    asyncio.run(answer(sys.argv[2]))
else:
    asyncio.run(offer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6])))
