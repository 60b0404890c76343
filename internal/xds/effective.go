package xds

import (
	"github.com/fairlead/fairlead/internal/envoy"
)

// refOrder puts every type behind those that it refers to.
var refOrder = [...]envoy.Type{envoy.Secret, envoy.Endpoint, envoy.Cluster, envoy.Route, envoy.Listener}

// effective is the configuration that this stream goes to: the target's, or if
// the proxy has rejected something of it, a private one in which
//   - what was rejected stands as the proxy has it (absent if it has none),
//   - so does what names a resource that is absent for that reason,
//   - what those name stays, although the target no longer has it.
//
// A rejection is forgotten when the target has other content for the resource.
func (s *Stream) effective() *envoy.Config {
	config := s.target.Config
	for ref, r := range s.rejected {
		if !same(find(config.Resources[ref.Type], ref.Name), r.Resource) {
			delete(s.rejected, ref)
		}
	}
	if len(s.rejected) == 0 {
		s.rejected = nil
		return config
	}
	private := *config
	var kept list
	for _, t := range refOrder {
		var changed list
		var absent []string
		for _, r := range config.Resources[t] {
			if s.rejected[r.Ref] == nil && complete(&private, config, r) {
				continue
			}
			if stands := find(s.sent[t], r.Name); stands != nil {
				changed = append(changed, stands)
			} else {
				absent = append(absent, r.Name)
			}
		}
		private.Resources[t] = with(private.Resources[t], changed, absent)
		kept = append(kept, changed...)
	}
	for len(kept) > 0 {
		r := kept[0]
		kept = kept[1:]
		for _, ref := range r.Refs {
			if find(private.Resources[ref.Type], ref.Name) != nil {
				continue
			}
			if stands := find(s.sent[ref.Type], ref.Name); stands != nil {
				private.Resources[ref.Type] = with(private.Resources[ref.Type], list{stands}, nil)
				kept = append(kept, stands)
			}
		}
	}
	return &private
}

// complete says whether all that r names is still there: what config has and
// private has not is absent because it was rejected.
func complete(private, config *envoy.Config, r *envoy.Resource) bool {
	for _, ref := range r.Refs {
		if find(private.Resources[ref.Type], ref.Name) == nil && find(config.Resources[ref.Type], ref.Name) != nil {
			return false
		}
	}
	return true
}
