#!/usr/bin/env python3
"""Makes the dashboards beside this file: `python3 deploy/grafana/generate.py`. Needs nothing but Python.

With `--check` it writes nothing, and fails where a file is not what it would write.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# Grafana's grid is this wide; a panel is this high.
WIDTH, HEIGHT = 24, 8
RATE = "$__rate_interval"
# What a direction of a path is, the worst last, so that the largest number is the worst of several.
STATES = ["unknown", "idle", "healthy", "recovering", "degraded", "down"]
COLOURS = ["text", "blue", "green", "yellow", "orange", "red"]


def quantile(share, metric, by, where):
    """Of a histogram as /metrics has it, or of a native one, as OTLP brings it."""
    classic = f"sum by ({by}, le) (rate({metric}_bucket{{{where}}}[{RATE}]))"
    native = f"sum by ({by}) (rate({metric}{{{where}}}[{RATE}]))"
    return f"histogram_quantile({share}, {classic}) or histogram_quantile({share}, {native})"


def rate(metric, by, where):
    return f"sum by ({by}) (rate({metric}{{{where}}}[{RATE}]))"


def panel(kind, title, *queries, width=12, height=HEIGHT, unit="short", about="", **more):
    """`queries` are pairs of an expression and what its series are called. Tables and single numbers show what is now."""
    now = kind in ("table", "stat", "bargauge")
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": {"type": "prometheus", "uid": "$datasource"},
            "expr": expression,
            "legendFormat": legend,
            "instant": now,
            "range": not now,
            **({"format": "table"} if kind == "table" else {}),
        }
        for i, (expression, legend) in enumerate(queries)
    ]
    options = {"legend": {"displayMode": "list", "placement": "bottom"}} if kind == "timeseries" else {}
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": unit, **more.pop("defaults", {})}, "overrides": []},
        "options": {**options, **more.pop("options", {})},
        "gridPos": {"w": width, "h": height},
        **more,
    }


def mapped(names, colours):
    """Numbers from 0 on, as words with colours."""
    words = {str(i): {"text": name, "color": colour, "index": i} for i, (name, colour) in enumerate(zip(names, colours))}
    return {"mappings": [{"type": "value", "options": words}], "color": {"mode": "thresholds"}}


def worst(metric, states, by, where):
    """The place in `states` of the worst state that stands."""
    terms = [f'{metric}{{{where},graylag_state="{state}"}} * {i}' for i, state in enumerate(states)]
    return f"max by ({by}) ({' or '.join(terms)})"


def variable(name, query, label, many=True):
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$datasource"},
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if many else {}),
    }


def dashboard(name, title, about, variables, panels):
    x = y = row = 0
    for number, one in enumerate(panels, 1):
        place = one["gridPos"]
        if x + place["w"] > WIDTH:
            x, y, row = 0, y + row, 0
        one["id"] = number
        one["gridPos"] = {"x": x, "y": y, **place}
        x, row = x + place["w"], max(row, place["h"])
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
    links = [{"type": "dashboards", "title": "graylag", "tags": ["graylag"], "asDropdown": True, "keepTime": True, "includeVars": True}]
    return {
        "uid": f"graylag-{name}",
        "title": f"graylag: {title}",
        "description": about,
        "tags": ["graylag"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": links,
        "templating": {"list": [source, *variables]},
        "panels": panels,
    }


JOB = variable("job", "label_values(graylag_agent_program_attached, job)", "Job")
POOL = variable("pool", 'label_values(graylag_agent_program_attached{job=~"$job"}, pool)', "Pool")
INSTANCE = variable("instance", 'label_values(graylag_agent_program_attached{job=~"$job"}, instance)', "Host")
ONE = variable("instance", 'label_values(graylag_agent_program_attached{job=~"$job"}, instance)', "Host", many=False)
PEER = variable("peer", 'label_values(graylag_path_state{job=~"$job"}, graylag_peer_name)', "Peer")

FLEET = 'job=~"$job",pool=~"$pool"'
HOST = 'job=~"$job",instance=~"$instance"'
PATH = f'{HOST},graylag_peer_name=~"$peer"'
NODES = ["unknown", "healthy", "recovering", "gray", "failing"]
NODE_COLOURS = ["text", "green", "yellow", "orange", "red"]

# Labels that a condition is not told by.
HIDDEN = {"Time": True, "__name__": True, "Value": True, "job": True, "pool": True}
CONDITIONS = {"transformations": [{"id": "organize", "options": {"excludeByName": HIDDEN}}]}


def fleet():
    return dashboard(
        "fleet",
        "fleet",
        "What stands anywhere, on how many hosts, and who stands out among neighbours.",
        [JOB, POOL],
        [
            panel("stat", "Hosts", (f"count(group by (instance) (graylag_agent_program_attached{{{FLEET}}}))", ""), width=4, height=4),
            panel("stat", "Conditions", (f"count(graylag_condition{{{FLEET}}} == 1) or vector(0)", ""), width=4, height=4),
            panel("stat", "Gray hosts", (f'count(graylag_node_state{{{FLEET},graylag_state=~"gray|failing"}} == 1) or vector(0)', ""), width=4, height=4),
            panel("stat", "Directions down", (f'count(graylag_path_state{{{FLEET},graylag_state="down"}} == 1) or vector(0)', ""), width=4, height=4),
            panel("stat", "Least coverage", (f"min(graylag_agent_coverage_ratio{{{FLEET}}})", ""), width=4, height=4, unit="percentunit"),
            panel("stat", "Dropped on export", (f"sum(increase(graylag_agent_export_dropped_total{{{FLEET}}}[$__range]))", ""), width=4, height=4),
            panel("timeseries", "Conditions by name", (f"count by (graylag_condition_name) (graylag_condition{{{FLEET}}} == 1)", "{{graylag_condition_name}}")),
            panel("timeseries", "Whose doing", (f"count by (graylag_blame) (graylag_condition{{{FLEET}}} == 1)", "{{graylag_blame}}")),
            panel(
                "table",
                "What several hosts say",
                ("sort_desc(graylag:condition:hosts >= 2)", ""),
                about="The more hosts say it, the less it is their doing.",
                transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}, "renameByName": {"Value": "hosts"}}}],
            ),
            panel(
                "timeseries",
                "Who stands out: addresses, hosts",
                ("graylag:handshake_bad:score5m > 2", "{{graylag_peer_name}} {{network_peer_address}}"),
                (f"graylag:activation_bad:score10m{{{FLEET}}} > 2", "activation {{instance}}"),
                (f"graylag:rtp_bad:score5m{{{FLEET}}} > 2", "loss {{instance}}"),
                about="Scores among neighbours (deploy/prometheus/fleet.yaml); told from 3.5 on.",
            ),
            panel("table", "What stands", (f"graylag_condition{{{FLEET}}} == 1", ""), width=24, height=12, **CONDITIONS),
            panel(
                "table",
                "Hosts",
                (worst("graylag_node_state", NODES, "instance", FLEET), ""),
                width=12,
                height=10,
                defaults={**mapped(NODES, NODE_COLOURS), "custom": {"cellOptions": {"type": "color-background"}}},
                transformations=[{"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"Value": "state"}}}],
            ),
            panel("timeseries", "Load that hosts should be given", (f"graylag_node_weight_ratio{{{FLEET}}} < 1", "{{instance}}"), height=10, unit="percentunit"),
        ],
    )


def paths():
    cell = worst("graylag_path_state", STATES, "instance, graylag_peer_name, network_io_direction", PATH)
    matrix = f'label_join({cell}, "cell", " ", "graylag_peer_name", "network_io_direction")'
    return dashboard(
        "paths",
        "paths",
        "How every host reaches every peer, each direction for itself: transmit is away from the host, receive towards it.",
        [JOB, INSTANCE, PEER],
        [
            panel(
                "table",
                "Path matrix: hosts down, peers and directions across",
                (matrix, ""),
                width=24,
                height=14,
                about="Of several addresses of a peer the worst. Empty: no media and no probes.",
                defaults={**mapped(STATES, COLOURS), "custom": {"cellOptions": {"type": "color-background"}, "align": "center"}},
                transformations=[
                    {"id": "groupingToMatrix", "options": {"rowField": "instance", "columnField": "cell", "valueField": "Value", "emptyValue": "empty"}}
                ],
            ),
            panel(
                "timeseries",
                "Loss",
                (f"max by (instance, graylag_peer_name, network_io_direction, graylag_method) (graylag_path_loss_ratio{{{PATH}}}) > 0", "{{instance}} {{graylag_peer_name}} {{network_io_direction}} ({{graylag_method}})"),
                unit="percentunit",
            ),
            panel(
                "timeseries",
                "Age of the newest proof",
                (f"max by (instance, graylag_peer_name, network_io_direction) (graylag_path_evidence_age_seconds{{{PATH}}})", "{{instance}} {{graylag_peer_name}} {{network_io_direction}}"),
                unit="s",
            ),
            panel(
                "timeseries",
                "Round trip of probes, p50 and p99",
                (quantile(0.5, "graylag_probe_duration_seconds", "graylag_peer_name, graylag_probe_kind", PATH), "{{graylag_peer_name}} {{graylag_probe_kind}} p50"),
                (quantile(0.99, "graylag_probe_duration_seconds", "graylag_peer_name, graylag_probe_kind", PATH), "{{graylag_peer_name}} {{graylag_probe_kind}} p99"),
                unit="s",
            ),
            panel("timeseries", "Probes that failed, by outcome", (f'sum by (graylag_peer_name, graylag_outcome) (rate(graylag_probe_count_total{{{HOST},graylag_outcome!="established"}}[{RATE}]))', "{{graylag_peer_name}} {{graylag_outcome}}"), unit="cps"),
            panel("timeseries", "TCP round trip, p50 and p99", (quantile(0.5, "graylag_tcp_rtt_seconds", "graylag_peer_name", PATH), "{{graylag_peer_name}} p50"), (quantile(0.99, "graylag_tcp_rtt_seconds", "graylag_peer_name", PATH), "{{graylag_peer_name}} p99"), unit="s"),
            panel("timeseries", "Probes that did not validate", (rate("graylag_probe_packet_auth_mismatch_total", "instance, graylag_peer_name", PATH), "{{instance}} {{graylag_peer_name}}"), unit="pps"),
        ],
    )


def host():
    subject = "graylag_peer_name, network_peer_address, graylag_service_name, graylag_role"
    named = "{{graylag_peer_name}} {{network_peer_address}} {{graylag_service_name}} {{graylag_role}}"
    return dashboard(
        "host",
        "host",
        "One host: its connections, what it drops, and the agent itself.",
        [JOB, ONE],
        [
            panel(
                "stat",
                "This host",
                (worst("graylag_node_state", NODES, "instance", HOST), "{{instance}}"),
                width=4,
                height=6,
                defaults=mapped(NODES, NODE_COLOURS),
                options={"colorMode": "background"},
            ),
            panel("table", "What stands", (f"graylag_condition{{{HOST}}} == 1", ""), width=20, height=6, **CONDITIONS),
            panel("timeseries", "Handshakes that did not come about, by outcome", (f'sum by (graylag_role, graylag_outcome) (rate(graylag_tcp_handshake_count_total{{{HOST},graylag_outcome!="established"}}[{RATE}]))', "{{graylag_role}} {{graylag_outcome}}"), unit="cps"),
            panel("timeseries", "Hanging now", (f'sum by ({subject}) (graylag_tcp_handshake_pending{{{HOST},graylag_stalled="true"}}) > 0', f"handshake {named}"), (f'sum by ({subject}) (graylag_tcp_first_byte_pending{{{HOST},graylag_stalled="true"}}) > 0', f"first byte {named}")),
            panel("timeseries", "Handshake, p99", (quantile(0.99, "graylag_tcp_handshake_duration_seconds", subject, HOST), named), unit="s"),
            panel("timeseries", "Response, p50", (quantile(0.5, "graylag_tcp_response_duration_seconds", subject, HOST), named), unit="s"),
            panel("timeseries", "First byte, p99", (quantile(0.99, "graylag_tcp_first_byte_duration_seconds", subject, HOST), named), unit="s"),
            panel("timeseries", "Segments sent again, by kind", (rate("graylag_tcp_segment_retransmitted_total", "graylag_retransmit_type", HOST), "{{graylag_retransmit_type}}"), unit="pps", about="No loss rate: tail loss probes and spurious ones are no loss."),
            panel("timeseries", "Dropped by this host, by reason", (rate("graylag_packet_dropped_total", "graylag_drop_reason, network_io_direction", f'{HOST},graylag_drop_side="host"'), "{{graylag_drop_reason}} {{network_io_direction}}"), unit="pps"),
            panel("timeseries", "Queues that were full", (rate("graylag_tcp_accept_queue_overflow_total", "graylag_service_name", HOST), "accept {{graylag_service_name}}"), (rate("graylag_tcp_request_queue_overflow_total", "graylag_service_name", HOST), "request {{graylag_service_name}}"), (rate("graylag_udp_receive_buffer_dropped_total", "graylag_service_name", HOST), "receive {{graylag_service_name}}"), unit="pps"),
            panel("timeseries", "Coverage", (f"min by (graylag_signal) (graylag_agent_coverage_ratio{{{HOST}}})", "{{graylag_signal}}"), unit="percentunit", defaults={"min": 0, "max": 1}),
            panel("timeseries", "How full the agent's tables are", (f"max by (graylag_map_name) (graylag_agent_map_usage{{{HOST}}} / graylag_agent_map_limit{{{HOST}}})", "{{graylag_map_name}}"), unit="percentunit", defaults={"min": 0, "max": 1}),
            panel("timeseries", "Lost and left out", (rate("graylag_agent_map_evicted_total", "graylag_map_name", HOST), "no room in {{graylag_map_name}}"), (f"sum(rate(graylag_agent_event_lost_total{{{HOST}}}[{RATE}]))", "events"), (f"sum(rate(graylag_agent_export_dropped_total{{{HOST}}}[{RATE}]))", "export"), unit="cps"),
            panel("timeseries", "Time in kernel programs", (rate("graylag_agent_program_time_seconds_total", "graylag_program_name", HOST), "{{graylag_program_name}}"), unit="percentunit", about="Of one processor; where `[kernel] program_stats` is on."),
        ],
    )


def media():
    count = "graylag_media_activation_count_total"

    def sessions(more):
        return f"sum(increase({count}{{{HOST}{more}}}[$__range])) or vector(0)"

    leg = "graylag_peer_name, network_io_direction"
    legs = "{{graylag_peer_name}} {{network_io_direction}}"
    return dashboard(
        "media",
        "media",
        "Sessions on their way to media, the media itself, and the relays.",
        [JOB, INSTANCE, PEER],
        [
            panel(
                "bargauge",
                "Funnel: how far sessions came",
                (sessions(""), "begun"),
                (sessions(',graylag_media_stage!="stun"'), "checks answered"),
                (sessions(',graylag_media_stage="rtp"'), "keys agreed"),
                (sessions(',graylag_outcome="active"'), "media both ways"),
                about="Of sessions that ended in this time range. Checks that nobody answers anybody can send.",
                options={"orientation": "horizontal", "displayMode": "gradient"},
            ),
            panel("timeseries", "Share that does not become active", (f'sum by (instance) (rate({count}{{{HOST},graylag_media_stage!="stun",graylag_outcome=~"failed|one_way"}}[{RATE}])) / sum by (instance) (rate({count}{{{HOST},graylag_media_stage!="stun",graylag_outcome=~"active|failed|one_way"}}[{RATE}]))', "{{instance}}"), unit="percentunit", defaults={"min": 0, "max": 1}),
            panel("timeseries", "Where they end", (rate(count, "graylag_media_stage, graylag_outcome", HOST), "{{graylag_media_stage}} {{graylag_outcome}}"), unit="cps"),
            panel("timeseries", "How long each stage takes, p50 and p99", (quantile(0.5, "graylag_media_activation_duration_seconds", "graylag_media_stage", HOST), "{{graylag_media_stage}} p50"), (quantile(0.99, "graylag_media_activation_duration_seconds", "graylag_media_stage", HOST), "{{graylag_media_stage}} p99"), unit="s"),
            panel("timeseries", "On their way now", (f"sum by (graylag_media_stage) (graylag_media_activation_pending{{{HOST}}})", "{{graylag_media_stage}}")),
            panel("timeseries", "RTP", (rate("graylag_rtp_packet_count_total", leg, PATH), legs), unit="pps"),
            panel("timeseries", "RTP lost", (f"sum by ({leg}) (rate(graylag_rtp_packet_lost_total{{{PATH}}}[{RATE}])) / sum by ({leg}) (rate(graylag_rtp_packet_count_total{{{PATH}}}[{RATE}]))", legs), unit="percentunit"),
            panel("timeseries", "Length of bursts of loss, p99", (quantile(0.99, "graylag_rtp_loss_burst", leg, PATH), legs)),
            panel("timeseries", "Jitter, p99", (quantile(0.99, "graylag_rtp_jitter_seconds", leg, PATH), legs), unit="s"),
            panel("timeseries", "Relays: in and out", (rate("graylag_relay_packet_count_total", "instance, graylag_process, network_io_direction", HOST), "{{instance}} {{graylag_process}} {{network_io_direction}}"), unit="pps"),
            panel("timeseries", "Relays that take in and put nothing out", (f"sum by (instance, graylag_process) (graylag_relay_stalled{{{HOST}}}) > 0", "{{instance}} {{graylag_process}}")),
        ],
    )


def main():
    stale = []
    for one in (fleet(), host(), media(), paths()):
        path = HERE / f"{one['uid']}.json"
        text = json.dumps(one, indent=2, ensure_ascii=False) + "\n"
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    if stale:
        sys.exit(f"not what generate.py makes: {', '.join(stale)}")


main()
