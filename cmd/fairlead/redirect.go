package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/redirect"
)

func newRedirectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "redirect",
		Short: "Send this host's traffic through its Envoy (iptables, needs root)",
		Args:  noArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newRedirectEnableCommand(),
		&cobra.Command{
			Use:   "disable",
			Short: "Remove the rules; does nothing where there are none",
			Args:  noArgs,
			RunE:  func(cmd *cobra.Command, _ []string) error { return redirect.Disable(cmd.Context()) },
		},
		&cobra.Command{
			Use:   "status",
			Short: "Print the rules in force; exits 1 if there are none",
			Args:  noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				enabled, err := redirect.Status(cmd.Context(), cmd.OutOrStdout())
				if err == nil && !enabled {
					err = exitCode(1)
				}
				return err
			},
		})
	return cmd
}

// newRedirectEnableCommand takes the values of App Mesh's proxy route manager
// from flags or from its variables; a flag wins.
func newRedirectEnableCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Put the rules in force, in place of earlier ones",
		Long: `Makes the chains APPMESH_INGRESS and APPMESH_EGRESS in table nat: inbound TCP connections
to the application's ports go to Envoy's ingress, outbound ones to its egress, except those
of Envoy's own user or group, to SSH, and to what is left out by port or address. Run again
it replaces the rules. Each flag may also be given by App Mesh's variable.`,
		Example: "  sudo fairlead redirect enable --ignore-uid 1337 --app-ports 8080",
		Args:    noArgs,
	}
	variables := map[string]string{} // by flag
	for _, f := range []struct{ flag, variable, usage string }{
		{"ignore-uid", redirect.EnvIgnoreUID, "user id whose traffic is left alone: Envoy's"},
		{"ignore-gid", redirect.EnvIgnoreGID, "group id whose traffic is left alone"},
		{"ingress-port", redirect.EnvIngressPort, "Envoy's ingress port (default 15000)"},
		{"egress-port", redirect.EnvEgressPort, "Envoy's egress port (default 15001)"},
		{"app-ports", redirect.EnvAppPorts, "the application's ports, whose inbound connections are redirected"},
		{"egress-ignored-ips", redirect.EnvEgressIgnoredIP, "addresses or CIDRs to which traffic is left alone (default: the metadata addresses)"},
		{"egress-ignored-ports", redirect.EnvEgressIgnoredPorts, "ports to which traffic is left alone, besides 22"},
		{"ipv6", redirect.EnvEnableIPv6, "the same for IPv6: true or false (default false)"},
	} {
		variables[f.flag] = f.variable
		cmd.Flags().String(f.flag, "", f.usage+" ["+f.variable+"]")
	}
	cmd.Flags().Lookup("ipv6").NoOptDefVal = "true"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := redirect.Parse(func(variable string) (string, bool) {
			for flag, name := range variables {
				if name == variable && cmd.Flags().Changed(flag) {
					return cmd.Flags().Lookup(flag).Value.String(), true
				}
			}
			// An empty variable is one that a template left empty.
			value, ok := os.LookupEnv(variable)
			return value, ok && (strings.TrimSpace(value) != "" || variable == redirect.EnvEgressIgnoredIP)
		})
		if err != nil {
			return usagef("read what to redirect:\n%w", err)
		}
		return redirect.Enable(cmd.Context(), config)
	}
	return cmd
}
