package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/agent"
)

func newAgentCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "agent",
		Short: "Run one proxy: a stock Envoy, configured by the server",
		Long: `Starts a stock Envoy (ENVOY_BIN, else the envoy on PATH), keeps it running and gives it
the configuration of its virtual node or virtual gateway. It takes the variables of App
Mesh's Envoy image; these are needed:

  APPMESH_RESOURCE_ARN    what this proxy is: mesh/MESH/virtualNode/NAME, or its ARN
  APPMESH_XDS_ENDPOINT    the server's xDS address, host:port
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or another way of the AWS SDK)
                          from: fairlead proxy credentials create mesh/MESH/virtualNode/NAME

  FAIRLEAD_CA_FILE        who vouches for the server's certificate; else the system's roots
  FAIRLEAD_BIND_ADDRESS   direct mode, without iptables and root: every listener binds here
  FAIRLEAD_APP_ADDRESS, FAIRLEAD_APP_PORTS, FAIRLEAD_TCP_EGRESS
                          direct mode: where the application listens, its ports (8080=18080,…),
                          a local port for each TCP backend (service:port=localport,…)
  FAIRLEAD_DNS_RESOLVER   IP:port of the resolver that Envoy asks
  FAIRLEAD_STATE_DIR      where the configuration is kept over a restart, without keys

Ports 9901 (/ready, /server_info, /stats, /clusters, /listeners, /certs) and 9902 (/status)
are on 127.0.0.1, in direct mode on FAIRLEAD_BIND_ADDRESS. SIGTERM drains connections for
LISTENER_DRAIN_WAIT_TIME_S (20) seconds at most; a second one stops at once.
docs/reference/agent.md has all variables.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := agent.ConfigFrom(os.LookupEnv)
			if err != nil {
				return usagef("read the agent's variables:\n%w", err)
			}
			config.Version = buildVersion()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
			defer stop()
			// The second signal meets Go's default and ends the agent; the kernel
			// then ends Envoy.
			context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT) })
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			return agent.Run(ctx, config, log, cmd.ErrOrStderr())
		},
	}
}
