"""The people's commands: `python -m services.ctl`. One file per group; each adds its subcommands to the table."""
