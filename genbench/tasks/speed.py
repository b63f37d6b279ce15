"""."""


def run(config, typed):
    import json

    print(json.dumps(config, indent=1))
