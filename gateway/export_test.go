package gateway

// What the tests from outside share with those inside.
const CrewIdle = crewIdle

var (
	ReadFrame   = readFrame
	ClientFrame = clientFrame
)
