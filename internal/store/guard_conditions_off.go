//go:build unguarded_conditions

package store

const guardConditions = false
