package store

import "github.com/fairlead/fairlead/internal/iam"

// Account owns the root key: Config.Account when the store was made. It is
// empty if the root key cannot be read.
func (s *Store) Account() string {
	s.cache.mu.RLock()
	defer s.cache.mu.RUnlock()
	for _, key := range s.cache.keys {
		if key.Principal.Kind == iam.Root {
			return key.Principal.Account
		}
	}
	return ""
}
