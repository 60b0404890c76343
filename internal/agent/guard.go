//go:build !unguarded_agent

package agent

// guardRemovals has the agent keep what it holds when the server comes back with
// another store or an older one (design.md 6). Off only in the test that shows
// what would happen.
const guardRemovals = true
