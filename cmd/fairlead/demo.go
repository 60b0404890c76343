package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/demo"
)

func newDemoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a mesh of real Envoys on this machine and show every edge's verdict",
		Long: `Starts a server on an embedded store in a temporary folder, makes a mesh through the
public API, and starts an agent and a stock Envoy for each of its endpoints, all on
loopback addresses and without root. It sends requests and shows what Envoy counted.
Exits 0 only if every expected verdict is in the Envoys' own counters.

ENVOY_BIN names the Envoy to use; else the envoy on PATH.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			envoy, err := envoyBinary()
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find the fairlead binary: %w", err)
			}
			run := demo.Demo{Fairlead: self, Envoy: envoy, Out: cmd.OutOrStdout(), Keep: keep, Log: slog.New(slog.DiscardHandler)}
			return run.Run(ctx)
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running and say what to try next")
	return cmd
}

func envoyBinary() (string, error) {
	name := os.Getenv("ENVOY_BIN")
	if name == "" {
		name = "envoy"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find Envoy: %w; set ENVOY_BIN, or run it as `make demo`, which installs one", err)
	}
	return path, nil
}
