// Command fairlead is all of Fairlead in one binary: the server, the agent
// beside each Envoy, and the commands of operators. It turns flags into
// configurations and wires packages together; it decides nothing else. The
// page it follows is design.md 3, "Outside contract".
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=….
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0, 1 for what went
// wrong, 2 for a command line that makes no sense.
func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[exitCode](err); ok {
		return int(exit)
	}
	fmt.Fprintf(os.Stderr, "fairlead: %v\n", err)
	if _, usage := errors.AsType[*usageError](err); usage {
		return 2
	}
	return 1
}

// exitCode ends the program with a code of its own; everything has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "fairlead",
		Short: "A self-hosted service mesh control plane with the API of AWS App Mesh",
		Long: `Fairlead is a self-hosted service mesh control plane that speaks the API of AWS
App Mesh: existing SDK calls, Terraform, CLI scripts and Envoy sidecars go on
with one endpoint changed.

  fairlead server      keeps the meshes and configures their Envoys
  fairlead agent       runs beside each Envoy

The other commands are for operators. They answer on standard output and take
their credentials as the AWS CLI does; the first server start writes some to
DATA-DIR/credentials.`,
		Version:       buildVersion(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          showHelp,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w\nSee '%s --help'.", err, cmd.CommandPath())
	})
	root.SetVersionTemplate("fairlead {{.Version}}\n")
	root.AddCommand(newServerCommand(), newProxyCommand(), newCACommand(), newEdgesCommand(), newProblemsCommand(), newVersionCommand())
	root.AddCommand(otherCommands()...)
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "fairlead", buildVersion())
			return err
		},
	}
}

// buildVersion is what the linker was told, else what Go knows of the build.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) > 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return info.Main.Version
}

// showHelp is what a command does that only has subcommands.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noArgs and exactArgs are cobra's checks with our exit code and a hint.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && cmd.HasSubCommands() {
		return usagef("unknown command %q for %q\nSee '%[2]s --help'.", args[0], cmd.CommandPath())
	}
	if len(args) > 0 {
		return usagef("%s takes no arguments, got %q", cmd.CommandPath(), args)
	}
	return nil
}

// oneArg requires the argument that the command's usage names.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usagef("%s takes one argument: %s\nUsage: %s", cmd.CommandPath(), what, cmd.UseLine())
		}
		return nil
	}
}
