package server

import (
	"context"
	"maps"
	"slices"

	"github.com/fairlead/fairlead/api/appmesh"
	"github.com/fairlead/fairlead/internal/mesh"
	"github.com/fairlead/fairlead/internal/store"
)

// maxTags is how many tags a resource may have (facts A.7).
const maxTags = 50

// ownPrefix begins the keys of tags that configure what App Mesh's spec cannot
// say (design.md 5): fairlead:KEY, or fairlead:PORT:KEY for one listener.
const ownPrefix = "fairlead:"

// ownTags are the keys that Fairlead acts on, with what their values may be.
// A key enters this table with the code that obeys it: accepting one before
// would promise what nothing does. There is none yet.
var ownTags = map[string][]string{}

// tagged is a resource of any kind, for the tag operations.
type tagged struct {
	noun string
	// tags reads the tags of a resource that must exist.
	tags func(tx *store.Tx, at location) (map[string]string, error)
	// retag stores the resource with other tags.
	retag func(tx *store.Tx, at location, tags map[string]string) error
}

func taggedKind[S any](k *kind[S]) tagged {
	return tagged{
		noun: k.noun,
		tags: func(tx *store.Tx, at location) (map[string]string, error) {
			record, err := k.get(tx, at)
			if err != nil {
				return nil, err
			}
			return record.Tags, nil
		},
		retag: func(tx *store.Tx, at location, tags map[string]string) error {
			record, err := k.get(tx, at)
			if err != nil {
				return err
			}
			next := *record
			next.Tags = tags
			return store.Put(tx, &next)
		},
	}
}

// taggedAs finds the generic operations of a kind.
func taggedAs(k mesh.Kind) tagged {
	switch k {
	case mesh.KindVirtualNode:
		return taggedKind(&virtualNodes)
	case mesh.KindVirtualService:
		return taggedKind(&virtualServices)
	case mesh.KindVirtualRouter:
		return taggedKind(&virtualRouters)
	case mesh.KindVirtualGateway:
		return taggedKind(&virtualGateways)
	case mesh.KindRoute:
		return taggedKind(&routes)
	case mesh.KindGatewayRoute:
		return taggedKind(&gatewayRoutes)
	}
	return taggedKind(&meshes)
}

// TagResource adds tags, or gives those that are there new values.
func (s *Service) TagResource(ctx context.Context, in *appmesh.TagResourceInput) (*appmesh.TagResourceOutput, error) {
	if err := check(requestRules, &asked{tags: in.Tags}).err(); err != nil {
		return nil, err
	}
	added := tagMap(in.Tags)
	err := s.retag(ctx, in.ResourceArn, func(tags map[string]string) error {
		maps.Copy(tags, added)
		if len(tags) > maxTags {
			return appmesh.NewTooManyTagsException("A resource has at most %d tags, %s would have %d", maxTags, in.ResourceArn, len(tags))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.TagResourceOutput{}, nil
}

// UntagResource removes tags; those that are not there are removed already.
func (s *Service) UntagResource(ctx context.Context, in *appmesh.UntagResourceInput) (*appmesh.UntagResourceOutput, error) {
	err := s.retag(ctx, in.ResourceArn, func(tags map[string]string) error {
		for _, key := range in.TagKeys {
			delete(tags, key)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &appmesh.UntagResourceOutput{}, nil
}

func (s *Service) retag(ctx context.Context, arn string, change func(tags map[string]string) error) error {
	at, err := s.parseARN(ctx, arn)
	if err != nil {
		return err
	}
	resource := taggedAs(at.id.Kind)
	err = s.write(ctx, func(tx *store.Tx) error {
		before, err := resource.tags(tx, at)
		if err != nil {
			return err
		}
		tags := maps.Clone(before)
		if tags == nil {
			tags = map[string]string{}
		}
		if err := change(tags); err != nil {
			return err
		}
		if maps.Equal(before, tags) {
			return nil
		}
		return resource.retag(tx, at, tags)
	})
	if err != nil {
		return s.failure(ctx, err)
	}
	return nil
}

// ListTagsForResource lists tags by key.
func (s *Service) ListTagsForResource(ctx context.Context, in *appmesh.ListTagsForResourceInput) (*appmesh.ListTagsForResourceOutput, error) {
	at, err := s.parseARN(ctx, in.ResourceArn)
	if err != nil {
		return nil, err
	}
	p := page{limit: in.Limit, token: in.NextToken, largest: maxTags}
	tokens, err := s.pageTokens(ctx, at)
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	after, err := tokens.after(p.token)
	if err != nil {
		return nil, err
	}
	var tags map[string]string
	_, err = s.Store.Read(ctx, func(tx *store.Tx) error {
		tags, err = taggedAs(at.id.Kind).tags(tx, at)
		return err
	})
	if err != nil {
		return nil, s.failure(ctx, err)
	}
	out := &appmesh.ListTagsForResourceOutput{Tags: []appmesh.TagRef{}}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if after != "" && key <= after {
			continue
		}
		if len(out.Tags) == p.size() {
			out.NextToken = tokens.Next(out.Tags[len(out.Tags)-1].Key)
			break
		}
		value := tags[key]
		out.Tags = append(out.Tags, appmesh.TagRef{Key: key, Value: &value})
	}
	return out, nil
}
