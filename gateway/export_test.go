package gateway

// What the tests from outside share with those inside.
var (
	ReadFrame   = readFrame
	ClientFrame = clientFrame
)
