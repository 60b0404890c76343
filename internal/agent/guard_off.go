//go:build unguarded_agent

package agent

const guardRemovals = false
