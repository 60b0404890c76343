package main

import "github.com/spf13/cobra"

// otherCommands are those that live in files of their own beside the server's
// and the operators': agent.go, redirect.go, demo.go, import.go, adopt.go,
// backup.go, kek.go, and the verbs that every resource has.
func otherCommands() []*cobra.Command {
	return []*cobra.Command{
		newAgentCommand(),
		newRedirectCommand(),
		newDemoCommand(),
		newApplyCommand(),
		newGetCommand(),
		newDescribeCommand(),
		newDeleteCommand(),
		newExportCommand(),
		newImportCommand(),
		newBackupCommand(),
		newRestoreCommand(),
		newKEKCommand(),
		newACMCommand(),
	}
}
