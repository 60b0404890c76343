package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

func newExportCommand() *cobra.Command {
	flags := &operatorFlags{}
	cmd := &cobra.Command{
		Use:   "export [MESH...]",
		Short: "Write meshes as files that apply and the AWS CLI read",
		Long: `Writes meshes with all that is in them and all tags to standard output: all meshes, or
those named. Each document is the create request of App Mesh's API, in the order in which
they can be made: 'fairlead apply -f' makes an equal mesh of them, and each works with the
AWS CLI's --cli-input-yaml or --cli-input-json.`,
		Example: `  fairlead export apps > apps.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := flags.connectMesh(cmd)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				meshes, err := api.list(cmd.Context(), mesh.Name{}, mesh.KindMesh)
				if err != nil {
					return err
				}
				for _, m := range meshes {
					args = append(args, m.Mesh)
				}
			}
			var resources []manifest.Resource
			for _, name := range args {
				all, err := api.all(cmd.Context(), mesh.Name{Mesh: name})
				if err != nil {
					return fmt.Errorf("read mesh %s: %w", name, err)
				}
				for _, s := range all {
					resources = append(resources, s.Resource)
				}
			}
			text, err := manifest.Write(resources, flags.output == "json")
			if err != nil {
				return err
			}
			_, err = api.out.Write(text)
			return err
		},
	}
	flags.addFormats(cmd, "yaml", "json")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeNames(cmd, flags, mesh.KindMesh, ""), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}
