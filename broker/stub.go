package broker
func (s *Subscription) ask() {}
