"""Components."""

from __future__ import annotations

import re
from typing import Any

import click

from minuet.cli import health_checks, names, nouns, place, screen
from minuet.client.api import Api
from minuet.kernel.errors import NotReady, invalid_field
from minuet.kernel.names import nearest

_TYPES = ("service", "web-application", "webhook", "event-handler")
_PAIR = re.compile(r",(?=\s*[A-Za-z][A-Za-z0-9]*=)")
"""A comma that another key follows; any other one belongs to the value, such as a command."""

_SPELLINGS = {
    "webapp": "web-application",
    "webapplication": "web-application",
    "web-app": "web-application",
    "eventhandler": "event-handler",
}


def component_type(given: str) -> str:
    """The type's own spelling; several are understood."""
    word = _SPELLINGS.get(given.lower(), given.lower())
    if word not in _TYPES:
        close = nearest(word, (*_TYPES, *_SPELLINGS))
        raise invalid_field(
            "type",
            "is not a component type",
            given=given,
            allowed=_TYPES,
            hint=f"did you mean {close}?" if close else None,
        )
    return word


def pairs(field: str, given: tuple[str, ...]) -> dict[str, str]:
    """`k=v,k=v` and repeated flags; raises `Invalid` for what is not a pair."""
    return dict(_pair(field, part) for text in given for part in _PAIR.split(text))


def _pair(field: str, text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise invalid_field(field, "must be written as key=value", given=text)
    return key.strip(), value.strip()


@click.command("component")
@click.argument("name")
@place.project_option
@click.option("--type", "kind", help="service, web-application, webhook or event-handler.")
@click.option(
    "--repo", "--repository", "repository", help="Repository URL; the project's hosted repository if not given."
)
@click.option("--branch", default="main", show_default=True, help="Branch to build.")
@click.option("--directory", default=".", show_default=True, help="Directory of the component in the repository.")
@click.option(
    "--credential",
    shell_complete=names.credentials,
    help="Credential for a private repository (`minuet create credential <name>`).",
)
@click.option("--build-configs", multiple=True, help="buildpack=python,buildPackLangVersion=3.11,... (repeatable).")
@click.option("--build-env", multiple=True, help="NAME=value for the build (repeatable).")
@click.option("--auto-build/--no-auto-build", default=True, help="Build each push.")
@click.option("--auto-deploy/--no-auto-deploy", default=None, help="Deploy each successful build of a push.")
@click.option("--display-name", help="What people call it.")
@click.option("--description", default="", help="What it is for.")
def create_(name: str, project: str | None, kind: str | None, **given: Any) -> None:
    """Create a component: one directory of one repository.

    \b
    Example:
      minuet create component web --project shop --type service \\
        --repo https://git.example.com/shop/web.git --branch main --directory . \\
        --build-configs buildpack=python,buildPackLangVersion=3.11
    """
    server = place.api()
    if kind is None:
        kind, given = _ask(server, given)
    build_configs = pairs("build-configs", given["build_configs"])
    hosted = given["repository"] is None
    body: dict[str, Any] = {
        "name": name,
        "type": component_type(kind),
        "description": given["description"],
        "repository": {
            "url": given["repository"],
            "branch": given["branch"],
            "directory": given["directory"],
            "credential": given["credential"],
        },
        "buildConfigs": build_configs,
        "buildEnvironment": dict(_pair("build-env", text) for text in given["build_env"]),
        "autoBuild": given["auto_build"],
        "autoDeploy": hosted if given["auto_deploy"] is None else given["auto_deploy"],
    }
    if given["display_name"]:
        body["displayName"] = given["display_name"]
    where = place.project_of(server, project)
    made = server.post(server.organization("projects", where, "components"), body)
    screen.say(f"Created the component {made['name']} in {where}.")
    if hosted:
        screen.say(f"Next: {_how_to_push(server, where, given['branch'])}")
    else:
        screen.say(f"Next: {place.command_line('create', 'build', made['name'], project=where)}")


def _how_to_push(server: Api, project: str, branch: str) -> str:
    try:
        url = server.get(server.organization("projects", project, "repository"))["cloneUrl"]
    except NotReady as error:
        return f"{place.command_line('describe', 'project', project)} (shows where to push to; {error.message})"
    return f"git remote add minuet {url} && git push minuet {branch}"


def _ask(server: Api, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A short conversation, for a person at a terminal who gave no type."""
    if not screen.is_terminal():
        raise invalid_field("type", "is required", allowed=_TYPES, hint="give it with --type")
    kind = screen.ask("Type", choices=_TYPES, default="service")
    answers = dict(given)
    if answers["repository"] is None:
        url = screen.ask("Remote repository URL (empty: the project's hosted repository)", default="")
        answers["repository"] = url or None
        answers["branch"] = screen.ask("Branch", default="main")
        answers["directory"] = screen.ask("Directory", default=".")
    if not answers["build_configs"]:
        answers["build_configs"] = _ask_buildpack(server, kind)
    return kind, answers


def _ask_buildpack(server: Api, kind: str) -> tuple[str, ...]:
    """Asks for a buildpack that the builders offer for this type, and for what it needs."""
    offers = server.get(server.organization("buildpacks"))["items"]
    fitting = {offer["name"]: offer for offer in offers if kind in (offer.get("componentTypes") or [kind])}
    if not fitting:
        return ()
    detect = "detect"
    chosen = screen.ask("Buildpack", choices=[detect, *fitting], default=detect)
    if chosen == detect:
        return ()
    offer = fitting[chosen]
    answers = [f"buildpack={chosen}"]
    if offer.get("versions"):
        default = offer.get("defaultVersion") or offer["versions"][-1]
        answers.append(f"buildPackLangVersion={screen.ask('Version', choices=offer['versions'], default=default)}")
    needed = [key for key in offer.get("required") or () if key not in ("buildpack", "buildPackLangVersion")]
    return (*answers, *(f"{key}={screen.ask(key)}" for key in needed))


@click.command("components")
@place.project_option
@place.output_option
def list_(project: str | None, output: str) -> None:
    """List components.

    \b
    Example:
      minuet list components --project shop
    """
    server = place.api()
    path = server.organization("projects", project, "components") if project else server.organization("components")
    nouns.show_list(server.pages(path), output, ("project", "name", "type", "environments", "age"), _row)


def _row(component: dict[str, Any]) -> tuple[object, ...]:
    states = ", ".join(f"{item['environment']}: {item['phase']}" for item in component["environments"])
    return component["project"], component["name"], component["type"], states, screen.ago(component["createdAt"])


@click.command("component")
@click.argument("name", shell_complete=names.components)
@place.project_option
@place.output_option
def describe_(name: str, project: str | None, output: str) -> None:
    """Describe a component and how it stands in each environment.

    \b
    Example:
      minuet describe component web --project shop
    """
    server = place.api()
    found = server.get(place.component_path(server, project, name))
    states = [
        server.get(place.environment_path(server, project, name, item["environment"])) for item in found["environments"]
    ]
    if output != "table":
        nouns.show_one(found | {"environments": states}, output)
        return
    source = found["repository"]
    screen.fields(
        [
            ("Name", found["name"]),
            ("Project", found["project"]),
            ("Type", found["type"]),
            ("Repository", source["url"] or "hosted"),
            ("Branch", source["branch"]),
            ("Directory", source["directory"]),
            ("Build configs", ", ".join(f"{key}={value}" for key, value in found["buildConfigs"].items())),
            ("Deploys by itself", "yes" if found["autoDeploy"] else "no"),
            ("State", found["state"] if found["state"] != "Active" else None),
            ("Waits for", ", ".join(found.get("heldBy") or ())),
        ]
    )
    for state in states:
        show_environment(state)


def show_environment(state: dict[str, Any]) -> None:
    """A component in an environment: version, address, instances, conditions."""
    screen.data("")
    unknown = f"  unknown since {state['unknownSince']}" if state.get("unknownSince") else ""
    screen.data(f"{state['environment']}: {state.get('phase') or 'not deployed'}{unknown}")
    current = state.get("current") or {}
    serving = state.get("serving") or {}
    addresses = ", ".join(f"{item['endpoint']}: {item['url']}" for item in state["urls"])
    for label, value in (
        ("Release", current.get("release")),
        ("Build", current.get("build")),
        ("Deployment", current.get("id")),
        ("Serving", serving.get("release")),
        ("Address", state.get("url")),
        ("Addresses", addresses if len(state["urls"]) > 1 else None),
        ("Health", health_checks.sentence(state.get("health"))),
    ):
        if value:
            screen.data(f"  {label.ljust(11)} {value}")
    for instance in state["instances"]:
        ready = "ready" if instance["ready"] else instance["phase"]
        age = screen.ago(instance.get("startedAt"))
        screen.data(f"  Instance    {instance['id']}  {ready}  restarts {instance['restarts']}  {age}")
    screen.conditions(place.named_steps(state["conditions"], current), began=current.get("createdAt"))


@click.command("component")
@click.argument("name", shell_complete=names.components)
@place.project_option
@place.output_option
def get_(name: str, project: str | None, output: str) -> None:
    """Print a component.

    \b
    Example:
      minuet get component web -o yaml
    """
    server = place.api()
    nouns.show_one(server.get(place.component_path(server, project, name)), output)


@click.command("component")
@click.argument("name", shell_complete=names.components)
@place.project_option
@click.option("--repo", "--repository", "url", help="Repository URL to build from.")
@click.option("--branch", help="Branch to build.")
@click.option("--directory", help="Directory of the component in the repository.")
@click.option("--credential", shell_complete=names.credentials, help="Credential for a private repository.")
@click.option("--no-credential", is_flag=True, help="Take the credential off.")
@click.option(
    "--build-configs", multiple=True, help="key=value,... to change; others stay, an empty value removes (repeatable)."
)
@click.option("--build-env", multiple=True, help="NAME=value for the build to change; others stay (repeatable).")
@click.option("--unset-build-env", multiple=True, help="NAME that builds no longer get (repeatable).")
@click.option("--auto-build/--no-auto-build", default=None, help="Build each push.")
@click.option("--auto-deploy/--no-auto-deploy", default=None, help="Deploy each successful build of a push.")
@click.option("--display-name", help="What people call it.")
@click.option("--description", help="What it is for.")
def set_(name: str, project: str | None, **given: Any) -> None:
    """Change a component; what is not given stays, and what runs stays until it is built and deployed again.

    \b
    Examples:
      minuet set component web --credential forge
      minuet set component web --branch release --build-configs port=9090 --no-auto-deploy
    """
    if given["credential"] and given["no_credential"]:
        raise invalid_field("credential", "is given and taken off at once")
    server = place.api()
    where = place.project_of(server, project, name)
    path = server.organization("projects", where, "components", name)
    found, etag = server.tagged(path)
    body = _changes(found, given)
    if not body:
        raise invalid_field("component", "nothing to change was given", hint="`minuet set component --help` lists it")
    server.patch(path, body, etag=etag)
    screen.say(f"Changed the component {name} in {where}.")
    if {"repository", "buildConfigs", "buildEnvironment"} & body.keys():
        screen.say(f"Next: {place.command_line('create', 'build', name, project=where)}")


def _changes(found: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The body of the change: only what was given, maps as they are to be as a whole."""
    plain = {
        "displayName": given["display_name"],
        "description": given["description"],
        "autoBuild": given["auto_build"],
        "autoDeploy": given["auto_deploy"],
    }
    body = {key: value for key, value in plain.items() if value is not None}
    source = {key: given[key] for key in ("url", "branch", "directory", "credential") if given[key] is not None}
    if given["no_credential"]:
        source["credential"] = None
    if source:
        body["repository"] = source
    if given["build_configs"]:
        changed = found["buildConfigs"] | pairs("build-configs", given["build_configs"])
        body["buildConfigs"] = {key: value for key, value in changed.items() if value}
    if given["build_env"] or given["unset_build_env"]:
        changed = found["buildEnvironment"] | dict(_pair("build-env", text) for text in given["build_env"])
        unknown = [key for key in given["unset_build_env"] if key not in changed]
        if unknown:
            raise invalid_field("unset-build-env", "is not set", given=unknown[0], allowed=changed)
        body["buildEnvironment"] = {key: value for key, value in changed.items() if key not in given["unset_build_env"]}
    return body


@click.command("component")
@click.argument("name", shell_complete=names.components)
@place.project_option
@place.yes_option
def delete_(name: str, project: str | None, yes: bool) -> None:
    """Delete a component, its deployments and its builds.

    \b
    Example:
      minuet delete component web --project shop --yes
    """
    server = place.api()
    where = place.project_of(server, project, name)
    nouns.confirm(
        name,
        f"the component {name} of the project {where}",
        lost="its deployments in every environment, its builds and releases, its configuration with all secrets",
        yes=yes,
    )
    server.delete(server.organization("projects", where, "components", name))
    screen.say(f"Deleting the component {name} of {where}: its deployments go first.")
    screen.say(f"Next: {place.command_line('wait', 'component', name, project=where)}")


@click.command("component")
@click.argument("name", shell_complete=names.components)
@place.project_option
@nouns.deletion_option
@nouns.timeout_option
def wait_(name: str, project: str | None, timeout: float) -> None:
    """Wait until a component that is being deleted is gone.

    \b
    Example:
      minuet wait component web --project shop --for delete
    """
    server = place.api()

    def find() -> dict[str, Any]:
        return server.get(place.component_path(server, project, name))

    nouns.until_gone(find, f"the component {name}", timeout)
