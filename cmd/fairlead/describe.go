package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/manifest"
	"github.com/fairlead/fairlead/internal/mesh"
)

func newDescribeCommand() *cobra.Command {
	flags, in := &operatorFlags{}, ""
	cmd := &cobra.Command{
		Use:   "describe KIND NAME | KIND/NAME",
		Short: "Show all about one resource: spec, tags, what it refers to, what refers to it, problems",
		Long: `Shows all about one resource as YAML: metadata, spec and tags, what it refers to and
what refers to it in its mesh, and the problems that 'fairlead problems' has of it.
` + kindsHelp,
		Args: someArgs("KIND and NAME, or KIND/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, named, err := parseResources(in, args)
			if err != nil {
				return err
			}
			if len(named) != 1 {
				return usagef("%s takes the name of one resource\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			api, err := flags.connectMesh(cmd)
			if err != nil {
				return err
			}
			d, err := describe(cmd.Context(), api, named[0])
			if err != nil {
				return err
			}
			text, err := manifest.YAML(d)
			if err != nil {
				return err
			}
			_, err = api.out.Write(text)
			return err
		},
	}
	flags.addFormats(cmd)
	addMesh(cmd, flags, &in)
	cmd.ValidArgsFunction = completeResources(flags, &in)
	return cmd
}

// description is what describe prints, in its order.
type description struct {
	Resource     string            `json:"resource"`
	Mesh         string            `json:"mesh"`
	ARN          string            `json:"arn"`
	UID          string            `json:"uid"`
	Version      *int64            `json:"version"`
	Created      string            `json:"created"`
	Updated      string            `json:"updated"`
	Owner        string            `json:"owner"`
	Spec         any               `json:"spec"`
	Tags         map[string]string `json:"tags"`
	References   []relation        `json:"references"`
	ReferencedBy []relation        `json:"referencedBy"`
	Problems     []trouble         `json:"problems"`
}

// relation is a reference, seen from one of its ends.
type relation struct {
	Resource string `json:"resource"`
	Field    string `json:"field,omitzero"`
	Missing  bool   `json:"missing,omitzero"`
}

type trouble struct {
	Field   string `json:"field,omitzero"`
	Message string `json:"message"`
}

func describe(ctx context.Context, api *meshAPI, r manifest.Resource) (*description, error) {
	s, err := api.find(ctx, r)
	if err != nil {
		return nil, err
	}
	all, err := api.all(ctx, s.In())
	if err != nil {
		return nil, err
	}
	d := &description{
		Resource: s.Name(), Mesh: s.Mesh, ARN: s.metadata.ARN, UID: s.metadata.UID, Version: s.metadata.Version,
		Created: s.metadata.CreatedAt.Format(time.RFC3339), Updated: s.metadata.LastUpdatedAt.Format(time.RFC3339), Owner: s.metadata.ResourceOwner,
		Spec: s.Spec, Tags: s.Tags,
	}
	for _, ref := range manifest.References(s.Resource) {
		there := slices.ContainsFunc(all, func(other *stored) bool { return other.ID == ref.To })
		d.References = append(d.References, relation{ref.To.String(), ref.Field, !there})
	}
	for _, other := range all {
		for _, ref := range manifest.References(other.Resource) {
			if ref.To == s.ID {
				d.ReferencedBy = append(d.ReferencedBy, relation{Resource: other.Name(), Field: ref.Field})
			}
		}
		if s.ID.Kind == mesh.KindMesh && other.ID.Kind != mesh.KindMesh {
			d.ReferencedBy = append(d.ReferencedBy, relation{Resource: other.Name()})
		}
	}
	problems, err := api.problems(ctx, s.Resource)
	if err != nil {
		return nil, err
	}
	for _, p := range problems {
		d.Problems = append(d.Problems, trouble{p.Field, p.Message})
	}
	return d, nil
}
