"""A small routing controller: it reads what graylag says at every site and moves routes, direct or by way of a third site.

    controller.py CONFIGURATION

The configuration is JSON: where `graylag` is, and of each site its socket, its network namespace, and the routes it may move:

    {"graylag": "graylag", "valid_for": 10,
     "sites": {"a": {"socket": "/run/a.sock", "netns": "a", "routes": {"b": {"to": "10.9.0.2", "direct": "10.1.0.2",
                                                                            "via": {"c": "10.2.0.3"}}}}, ...}}

Paths between sites are named by the other site. Each move is a line of JSON. The rules are those of docs/verdicts.md, "For a router": a
direction is bad where its sender knows that it does not arrive, or its receiver that it does not come; what has not been heard of
in time is not known, and nothing is moved for what is not known; no way is left unless another one is known to be well.
"""

import asyncio
import datetime
import json
import subprocess
import sys
import time

BAD = ("down", "degraded")


class Site:
    """What one site's agent says."""

    def __init__(self, name, configuration):
        self.name, self.configuration = name, configuration
        self.paths, self.stalls, self.valid_until = {}, set(), 0.0

    def take(self, message):
        valid = datetime.datetime.fromisoformat(message["valid_until"][:26].rstrip("Z") + "+00:00")
        self.valid_until = valid.timestamp()
        kind = message["type"]
        if kind == "state":
            self.paths = {(p["peer"], p["direction"]): p["state"] for p in message["paths"]}
            self.stalls = {self.stall(c) for c in message["conditions"] if c["phase"] == "raised"} - {None}
        elif kind == "path":
            path = message["path"]
            self.paths[path["peer"], path["direction"]] = message["to"]
        elif kind == "transition":
            stall = self.stall(message["condition"])
            if stall and message["to"] == "raised":
                self.stalls.add(stall)
            else:
                self.stalls.discard(stall)

    @staticmethod
    def stall(condition):
        """Which relay it is that takes in and puts nothing out."""
        return condition["target"].get("pid") if condition["name"] == "relay_stall" else None

    def forget(self):
        self.paths, self.stalls, self.valid_until = {}, set(), 0.0

    def state(self, peer, direction):
        return self.paths.get((peer, direction), "unknown") if time.time() < self.valid_until else "unknown"

    def relays(self):
        return not (self.stalls and time.time() < self.valid_until)


class Controller:
    def __init__(self, configuration):
        self.graylag, self.valid_for = configuration["graylag"], configuration.get("valid_for", 10)
        self.sites = {name: Site(name, site) for name, site in configuration["sites"].items()}
        # The way each route goes now: none is the direct one.
        self.ways = {(s.name, to): None for s in self.sites.values() for to in s.configuration.get("routes", {})}

    def states(self, sender, receiver):
        return self.sites[sender].state(receiver, "transmit"), self.sites[receiver].state(sender, "receive")

    def is_bad(self, sender, receiver):
        return any(state in BAD for state in self.states(sender, receiver))

    def is_well(self, sender, receiver):
        return all(state == "healthy" for state in self.states(sender, receiver))

    def wanted(self, sender, receiver):
        now = self.ways[sender, receiver]
        if self.is_well(sender, receiver):
            return None
        if now is None and not self.is_bad(sender, receiver):
            return None
        usable = [
            site
            for site in self.sites[sender].configuration["routes"][receiver]["via"]
            if self.sites[site].relays() and not self.is_bad(sender, site) and not self.is_bad(site, receiver)
        ]
        # Never without a way: where no other is known to be better, the one that is stays.
        if now in usable:
            return now
        known = [site for site in usable if self.is_well(sender, site) and self.is_well(site, receiver)]
        return known[0] if known else None

    def decide(self):
        for (sender, receiver), now in self.ways.items():
            way = self.wanted(sender, receiver)
            if way == now:
                continue
            route = self.sites[sender].configuration["routes"][receiver]
            gateway = route["via"][way] if way else route["direct"]
            netns = self.sites[sender].configuration["netns"]
            arguments = [route["to"], "via", gateway, "src", route["from"]]
            subprocess.run(["ip", "-n", netns, "route", "replace", *arguments], check=True)
            self.ways[sender, receiver] = way
            why = self.states(sender, receiver)
            print(json.dumps({"at": time.monotonic(), "from": sender, "to": receiver, "via": way, "why": why}), flush=True)

    async def watch(self, site):
        while True:
            process = await asyncio.create_subprocess_exec(
                self.graylag, "watch", "--json", "--socket", site.configuration["socket"],
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1 << 22,
            )
            async for line in process.stdout:
                site.take(json.loads(line))
                self.decide()
            # The feed has ended: what it said is worth nothing any more.
            site.forget()
            await process.wait()
            await asyncio.sleep(0.5)

    async def say_what_is_avoided(self):
        """So that graylag can tell where this controller holds on to an avoidance that evidence contradicts."""
        while True:
            for site in self.sites.values():
                avoided = [r for (s, r), way in self.ways.items() if s == site.name and way]
                body = {"avoid": [{"peer": r, "direction": "transmit"} for r in avoided], "valid_for": self.valid_for}
                await self.post(site.configuration["socket"], "/v1/avoid", body)
            await asyncio.sleep(self.valid_for / 3)

    @staticmethod
    async def post(socket, path, body):
        body = json.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nhost: graylag\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        try:
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write((head + body).encode())
            answer = await reader.read()
            writer.close()
        except OSError:
            return
        if not answer.startswith(b"HTTP/1.1 200"):
            print(answer.decode(errors="replace"), file=sys.stderr)

    async def expire(self):
        """What has not been heard of in time is not known."""
        while True:
            await asyncio.sleep(0.5)
            self.decide()

    async def run(self):
        watches = [self.watch(site) for site in self.sites.values()]
        await asyncio.gather(*watches, self.say_what_is_avoided(), self.expire())


with open(sys.argv[1]) as file:
    controller = Controller(json.load(file))
print(json.dumps({"ready": True}), flush=True)
asyncio.run(controller.run())
