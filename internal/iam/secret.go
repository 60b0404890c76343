package iam

import "github.com/fairlead/fairlead/api"

// Secret is a string that nothing prints.
type Secret = api.Secret

// NewSecret wraps a value.
func NewSecret(value string) Secret { return api.NewSecret(value) }
