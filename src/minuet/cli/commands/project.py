"""Projects."""

from __future__ import annotations

import click

from minuet.cli import names, nouns, place, screen
from minuet.client import contexts
from minuet.client.api import Api
from minuet.kernel.errors import NotReady, invalid_field


@click.command("project")
@click.argument("name")
@click.option("--display-name", help="What people call it.")
@click.option("--description", default="", help="What it is for.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["monorepo", "multi-repository"]),
    default="monorepo",
    help="Layout of its sources.",
)
def create_(name: str, display_name: str | None, description: str, kind: str) -> None:
    """Create a project.

    \b
    Example:
      minuet create project shop
    """
    server = place.api()
    body = {"name": name, "description": description, "type": kind}
    made = server.post(server.organization("projects"), body | ({"displayName": display_name} if display_name else {}))
    screen.say(f"Created the project {made['name']}.")
    if contexts.mean(made["name"], server.context):
        screen.say(f"From now on {made['name']} is meant where no project is named.")
    screen.say(f"Next: {place.command_line('create', 'component', 'web', project=made['name'])}")
    screen.say("  It asks for type, repository and buildpack; flags answer in advance.")


@click.command("projects")
@place.output_option
def list_(output: str) -> None:
    """List projects.

    \b
    Example:
      minuet list projects
    """
    server = place.api()
    items = server.pages(server.organization("projects"))
    nouns.show_list(
        items,
        output,
        ("name", "display name", "age"),
        lambda p: (p["name"], p["displayName"], screen.ago(p["createdAt"])),
    )


@click.command("project")
@click.argument("name", shell_complete=names.projects)
@place.output_option
def describe_(name: str, output: str) -> None:
    """Describe a project, its components and its hosted repository.

    \b
    Example:
      minuet describe project shop
    """
    server = place.api()
    found = server.get(server.organization("projects", name))
    repository = _repository(server, name)
    components = list(server.pages(server.organization("projects", name, "components")))
    if output != "table":
        nouns.show_one(found | {"cloneUrl": repository, "components": components}, output)
        return
    screen.fields(
        [
            ("Name", found["name"]),
            ("Display name", found["displayName"]),
            ("Description", found["description"]),
            ("Repository", repository and f"{repository} (hosted; push to it with a token as the password)"),
            ("Created", found["createdAt"]),
        ]
    )
    for component in components:
        screen.data(f"  {component['name']}  {component['type']}")
        for environment in component["environments"]:
            screen.data(f"    {environment['environment']}: {environment['phase']}  {environment.get('url') or ''}")


def _repository(server: Api, project: str) -> str | None:
    """Where the hosted repository is; unknown while no builder has registered, which spoils nothing else."""
    try:
        found: str = server.get(server.organization("projects", project, "repository"))["cloneUrl"]
        return found
    except NotReady as error:
        screen.say(f"Note: {error.message}")
        return None


@click.command("project")
@click.argument("name", shell_complete=names.projects)
@place.output_option
def get_(name: str, output: str) -> None:
    """Print a project.

    \b
    Example:
      minuet get project shop -o json
    """
    server = place.api()
    nouns.show_one(server.get(server.organization("projects", name)), output)


@click.command("project")
@click.argument("name", shell_complete=names.projects)
@click.option("--display-name", help="What people call it.")
@click.option("--description", help="What it is for.")
def set_(name: str, display_name: str | None, description: str | None) -> None:
    """Change what people read of a project; its name never changes.

    \b
    Example:
      minuet set project shop --display-name "The shop"
    """
    given = {"displayName": display_name, "description": description}
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise invalid_field("project", "nothing to change was given", allowed=("--display-name", "--description"))
    server = place.api()
    path = server.organization("projects", name)
    _, etag = server.tagged(path)
    server.patch(path, body, etag=etag)
    screen.say(f"Changed the project {name}.")


@click.command("project")
@click.argument("name", shell_complete=names.projects)
@place.yes_option
def delete_(name: str, yes: bool) -> None:
    """Delete a project with all its components.

    \b
    Example:
      minuet delete project shop --yes
    """
    server = place.api()
    nouns.confirm(
        name,
        f"the project {name}",
        lost="all its components with their deployments, builds, configuration, secrets and the hosted repository",
        yes=yes,
    )
    server.delete(server.organization("projects", name))
    if server.context.project == name:
        contexts.mean(None, server.context)
    screen.say(f"Deleting the project {name}.")
    screen.say(f"Next: {place.command_line('wait', 'project', name)}")


@click.command("project")
@click.argument("name", shell_complete=names.projects)
@nouns.deletion_option
@nouns.timeout_option
def wait_(name: str, timeout: float) -> None:
    """Wait until a project that is being deleted is gone.

    \b
    Example:
      minuet wait project shop --for delete
    """
    server = place.api()
    nouns.until_gone(lambda: server.get(server.organization("projects", name)), f"the project {name}", timeout)
