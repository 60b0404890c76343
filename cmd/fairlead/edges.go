package main

import (
	"fmt"
	"io"
	"net/http"
	neturl "net/url"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/edge"
	"github.com/fairlead/fairlead/internal/server"
)

func newEdgesCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "edges MESH",
		Short: "Show every edge of a mesh: how it is encrypted, why, and what the Envoys counted",
		Long: `Shows every edge of a mesh, from a client to a port of a virtual node: whether it is
plaintext, encrypted, mutual or broken, the reason, and how many handshakes the
client's Envoys have finished. A verdict that no counter carries yet is marked as
predicted. -o json has the deciding field, the rule and all failures.`,
		Args: oneArg("the name of a mesh"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list server.EdgeList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/meshes/"+neturl.PathEscape(args[0])+"/edges", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) { io.WriteString(w, edge.Text(list.Edges)) }) //nolint:errcheck // the tabwriter keeps errors for Flush
		},
	}
	flags.add(cmd)
	return cmd
}

func newProblemsCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "problems MESH",
		Short: "Show what is wrong in a mesh: references that lead nowhere, resources that an Envoy rejected",
		Args:  oneArg("the name of a mesh"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			var list server.ProblemList
			raw, err := o.call(cmd.Context(), http.MethodGet, "/fairlead/v1/meshes/"+neturl.PathEscape(args[0])+"/problems", nil, &list)
			if err != nil {
				return err
			}
			return o.print(raw, func(w io.Writer) {
				if len(list.Problems) == 0 {
					fmt.Fprintf(w, "No problems in mesh %s.\n", list.Mesh)
					return
				}
				fmt.Fprintln(w, "RESOURCE\tFIELD\tPROBLEM")
				for _, p := range list.Problems {
					fmt.Fprintf(w, "%s\t%s\t%s\n", p.Resource, p.Field, p.Message)
				}
			})
		},
	}
	flags.add(cmd)
	return cmd
}
