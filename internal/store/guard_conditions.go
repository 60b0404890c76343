//go:build !unguarded_conditions

package store

// guardConditions makes what a transaction has read a condition of its writes.
const guardConditions = true
