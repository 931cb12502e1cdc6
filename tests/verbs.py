"""Every verb of the command, those of a group with the group's name before."""

from cli.main import app

VERBS = [
    *(str(command.name) for command in app.registered_commands),
    *(
        f"{group.typer_instance.info.name} {command.name}"
        for group in app.registered_groups
        if group.typer_instance
        for command in group.typer_instance.registered_commands
    ),
]
