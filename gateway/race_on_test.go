//go:build race

package gateway

// raceDetector tells that pools forget on purpose, so that allocations cannot
// be counted.
const raceDetector = true
