"""Judges what is in deploy/ with code that is not ours, and says what it found as JSON.

  judge.py yaml FILE...       the documents of these files
  judge.py promql             what each query on standard input (a JSON list) asks for, or why it cannot be parsed
  judge.py kubernetes V...    the documents on standard input against the strict schemas of these versions: what is wrong
"""

import json
import sys

import yaml


def documents(paths):
    return [document for path in paths for document in yaml.safe_load_all(open(path)) if document is not None]


def asks(expression):
    import promql_parser as promql

    selectors, labels = [], set()

    def visit(node):
        if isinstance(node, promql.VectorSelector):
            matchers = [[m.name, str(m.op).rsplit(".", 1)[-1], m.value] for m in node.matchers.matchers]
            selectors.append({"metric": node.name or "", "matchers": matchers})
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            labels.update(node.modifier.labels)
        if isinstance(node, promql.BinaryExpr) and node.modifier:
            labels.update(node.modifier.matching.labels if node.modifier.matching else [])
            labels.update(node.modifier.group_labels.labels if node.modifier.group_labels else [])

    try:
        promql.walk(promql.parse(expression), visit)
    except Exception as error:
        return {"error": str(error)}
    return {"selectors": selectors, "labels": sorted(labels)}


def wrong(document, version):
    import kubernetes_validate as kubernetes

    name = f"{document.get('kind')} {document.get('metadata', {}).get('name')}, Kubernetes {version}"
    try:
        # The nearest schemas that are not newer are taken where there are none of this version: not here.
        if kubernetes.validate(document, version, strict=True) != version:
            return f"{name}: there are no schemas of this version"
    except kubernetes.ValidationError as error:
        return f"{name}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes.SchemaNotFoundError as error:
        return f"{name}: {error.message}"
    return None


def main():
    what, *arguments = sys.argv[1:]
    if what == "yaml":
        answer = documents(arguments)
    elif what == "promql":
        answer = [asks(expression) for expression in json.load(sys.stdin)]
    elif what == "kubernetes":
        given = [document for document in yaml.safe_load_all(sys.stdin) if document is not None]
        errors = [wrong(document, version) for version in arguments for document in given]
        answer = {"documents": given, "errors": [error for error in errors if error]}
    else:
        sys.exit(f"no such word: {what}")
    json.dump(answer, sys.stdout)


main()
